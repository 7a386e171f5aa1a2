//! Reads attributes: the inverse of how they are printed.

use crate::curve::Curve;
use crate::op::attribute::{Heads, Pairs, Perm, Scalar, Surrogate};
use crate::types::{Code, Dim, Shape};
use std::fmt;

pub(crate) fn curve(name: &str) -> Result<Curve, String> {
    Curve::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Curve::ALL.into_iter().map(Curve::name).collect();
        format!("`{name}` is no curve: there are {}", names.join(", "))
    })
}

pub(crate) fn surrogate(name: &str) -> Result<Surrogate, String> {
    let names = || Surrogate::ALL.map(Surrogate::name).join(", ");
    Surrogate::from_name(name).ok_or_else(|| format!("`{name}` is no surrogate: there are {}", names()))
}

pub(crate) fn pairs(name: &str) -> Result<Pairs, String> {
    let names = || Pairs::ALL.map(Pairs::name).join(" and ");
    Pairs::from_name(name).ok_or_else(|| format!("`{name}` is no pairing: there are {}", names()))
}

/// Heads, and the attributes behind them.
pub(crate) fn heads<'a, 'b>(attributes: &'b [&'a str]) -> Result<(Heads, &'b [&'a str]), String> {
    let (first, mut rest) = attributes.split_first().ok_or("`heads=` is missing")?;
    let mut heads = Heads::equal(number(keyed(first, "heads")?)?);
    let mut optional = |key: &str| match rest.split_first() {
        Some((first, more)) if first.starts_with(key) => {
            rest = more;
            Some(keyed(first, key).and_then(number)).transpose()
        }
        Some(_) | None => Ok(None),
    };
    heads.kv = optional("kv_heads")?.unwrap_or(heads.query);
    heads.window = optional("window")?;
    if let Some((&"alibi", more)) = rest.split_first() {
        (heads.alibi, rest) = (true, more);
    }
    if let Some((&"thresholds", more)) = rest.split_first() {
        (heads.thresholds, rest) = (true, more);
    }
    Ok((heads, rest))
}

/// The value of `key=value`.
pub(crate) fn keyed<'a>(attribute: &'a str, key: &str) -> Result<&'a str, String> {
    let value = attribute.strip_prefix(key).and_then(|rest| rest.strip_prefix('='));
    value.ok_or_else(|| format!("`{key}=` was expected, here is `{attribute}`"))
}

pub(crate) fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("`{text}` is no number that fits here"))
}

/// Any f32 but those that are not numbers, whose bits a spelling would lose.
pub(crate) fn scalar(text: &str) -> Result<Scalar, String> {
    let value: f32 = number(text)?;
    if value.is_nan() { Err(format!("`{text}` is not a number")) } else { Ok(Scalar::new(value)) }
}

pub(crate) fn perm(axes: &[&str]) -> Result<Perm, String> {
    let numbers = axes.iter().map(|axis| number(axis)).collect::<Result<Vec<usize>, String>>()?;
    Perm::new(&numbers).ok_or_else(|| format!("[{}] is no order of at most five axes", axes.join(",")))
}

/// Sizes of a shape, of which there are at most five.
pub(crate) fn shape(dims: &[&str]) -> Result<Shape, String> {
    if dims.len() > Shape::MAX_RANK {
        return Err(format!("shapes have at most {} sizes", Shape::MAX_RANK));
    }
    let dim = |text: &&str| match *text {
        "tokens" => Ok(Dim::Tokens),
        "context" => Ok(Dim::Context),
        size => number(size).map(Dim::Fixed),
    };
    Ok(Shape::new(&dims.iter().map(dim).collect::<Result<Vec<Dim>, String>>()?))
}

/// `code,steps`, and the curve where it is not the identity.
pub(crate) fn neuron(attributes: &[&str]) -> Result<(Code, u16, Curve), String> {
    let (code, steps, curve) = match *attributes {
        [code, steps] => (code, steps, Curve::Identity),
        [code, steps, curve] => (code, steps, self::curve(curve)?),
        _ => return Err("a neuron has a code, timesteps and perhaps a curve".into()),
    };
    let code = Code::from_name(code).ok_or_else(|| format!("`{code}` is no code: there are binary and unary"))?;
    Ok((code, number(steps)?, curve))
}

/// `[code,steps]`, and the curve where it is not the identity. A membrane stands in the code's place.
pub(crate) fn write_neuron(f: &mut fmt::Formatter<'_>, code: &str, steps: u16, curve: Curve) -> fmt::Result {
    match curve {
        Curve::Identity => write!(f, "[{code},{steps}]"),
        curve => write!(f, "[{code},{steps},{}]", curve.name()),
    }
}

/// `code,steps,curve` of neurons with a gate, whose curve is always named.
pub(crate) fn gated(attributes: &[&str]) -> Result<(Code, u16, Curve), String> {
    match attributes {
        [_, _, _] => neuron(attributes),
        _ => Err("a gated neuron has a code, timesteps and a curve".into()),
    }
}

/// `[code,steps,curve]`.
pub(crate) fn write_gated(f: &mut fmt::Formatter<'_>, code: Code, steps: u16, curve: Curve) -> fmt::Result {
    write!(f, "[{},{steps},{}]", code.name(), curve.name())
}
