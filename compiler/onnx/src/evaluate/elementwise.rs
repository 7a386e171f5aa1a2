//! Operators that work element by element, with broadcasting.

use super::call::{ElementOffsets, OnnxCall, broadcast, elem_of};
use super::network;
use crate::tensor::{ArrayData, Element, OnnxArray, OnnxElem};

impl OnnxCall<'_> {
    pub(super) fn cast(&self) -> Result<OnnxArray, String> {
        let elem = elem_of(self.node.int("to").ok_or("attribute `to` is missing")?)?;
        Ok(self.arg(0)?.cast(elem))
    }

    /// Add, Sub, Mul, Div, Pow, Mod of two; Min, Max of any number.
    pub(super) fn arithmetic(&self) -> Result<OnnxArray, String> {
        let op = self.node.op_type.as_str();
        let mut result = self.arg(0)?.clone();
        let elem = result.elem();
        for i in 1..self.inputs.len() {
            let other = self.arg(i)?;
            result = match (elem, other.elem()) {
                (OnnxElem::F32, OnnxElem::F32) => {
                    let fmod = self.node.int("fmod") == Some(1);
                    match op {
                        "Add" | "Sum" => network::zip(&result, other, |a, b| a + b)?,
                        "Sub" => network::zip(&result, other, |a, b| a - b)?,
                        "Mul" => network::zip(&result, other, |a, b| a * b)?,
                        _ => network::zip(&result, other, |a, b| float(op, a, b, fmod))?,
                    }
                }
                (OnnxElem::F32, _) => {
                    let fmod = self.node.int("fmod") == Some(1);
                    zip(&result, other, OnnxElem::F32, |a, b| {
                        Ok(Element::Float(float(op, a.float(), b.float(), fmod)))
                    })?
                }
                (elem, OnnxElem::F32) if op == "Pow" => zip(&result, other, elem, |a, b| {
                    Ok(Element::Int(libm::pow(a.int() as f64, f64::from(b.float())) as i64))
                })?,
                (elem, other_elem) if elem.is_int() && other_elem.is_int() => {
                    zip(&result, other, elem, |a, b| int(op, a.int(), b.int()).map(Element::Int))?
                }
                (a, b) => return Err(format!("{op} of {} and {} is not possible", a.name(), b.name())),
            };
        }
        Ok(result)
    }

    pub(super) fn comparison(&self) -> Result<OnnxArray, String> {
        let op = self.node.op_type.as_str();
        zip(self.arg(0)?, self.arg(1)?, OnnxElem::Bool, |a, b| {
            let order = match (a, b) {
                (Element::Int(a), Element::Int(b)) => Some(a.cmp(&b)),
                (a, b) => a.float().partial_cmp(&b.float()),
            };
            let holds = order.is_some_and(|order| match op {
                "Equal" => order.is_eq(),
                "Less" => order.is_lt(),
                "LessOrEqual" => order.is_le(),
                "Greater" => order.is_gt(),
                _ => order.is_ge(),
            });
            Ok(Element::Int(i64::from(holds)))
        })
    }

    pub(super) fn logic(&self) -> Result<OnnxArray, String> {
        let op = self.node.op_type.as_str();
        zip(self.arg(0)?, self.arg(1)?, OnnxElem::Bool, |a, b| {
            let (a, b) = (!a.is_zero(), !b.is_zero());
            let holds = match op {
                "And" => a && b,
                "Or" => a || b,
                _ => a != b,
            };
            Ok(Element::Int(i64::from(holds)))
        })
    }

    pub(super) fn not(&self) -> Result<OnnxArray, String> {
        let x = self.arg(0)?;
        Ok(OnnxArray::bool(x.sizes(), (0..x.len()).map(|i| x.data().get(i).is_zero()).collect()))
    }

    pub(super) fn is_nan(&self) -> Result<OnnxArray, String> {
        let x = self.arg(0)?;
        let floats = x.as_f32().ok_or("a float array is wanted")?;
        Ok(OnnxArray::bool(x.sizes(), floats.iter().map(|x| x.is_nan()).collect()))
    }

    pub(super) fn unary(&self) -> Result<OnnxArray, String> {
        let (op, x) = (self.node.op_type.as_str(), self.arg(0)?);
        if let Some(floats) = x.as_f32() {
            let f = unary_float(op);
            return Ok(OnnxArray::f32(x.sizes(), floats.iter().map(|&x| f(x)).collect()));
        }
        let f: fn(i64) -> i64 = match op {
            "Neg" => i64::wrapping_neg,
            "Abs" => i64::wrapping_abs,
            "Relu" => |x| x.max(0),
            "Sign" => i64::signum,
            _ => return Err(format!("{op} of {} is not possible", x.elem().name())),
        };
        let numbers = (0..x.len()).map(|i| Element::Int(f(x.data().get(i).int())));
        Ok(OnnxArray::new(x.sizes().to_vec(), ArrayData::from_numbers(x.elem(), numbers)))
    }

    /// Where.
    pub(super) fn choose(&self) -> Result<OnnxArray, String> {
        let (c, a, b) = (self.arg(0)?, self.arg(1)?, self.arg(2)?);
        if a.elem() != b.elem() {
            return Err(format!(
                "both cases should be of one type, here are {} and {}",
                a.elem().name(),
                b.elem().name()
            ));
        }
        let sizes = broadcast(&broadcast(c.sizes(), a.sizes())?, b.sizes())?;
        let walk = |x: &OnnxArray| ElementOffsets::stretched(x.sizes(), &sizes);
        let numbers = walk(c)?
            .zip(walk(a)?)
            .zip(walk(b)?)
            .map(|((i, j), k)| if c.data().get(i).is_zero() { b.data().get(k) } else { a.data().get(j) });
        let data = ArrayData::from_numbers(a.elem(), numbers);
        Ok(OnnxArray::new(sizes, data))
    }
}

/// `f` of all pairs of elements.
fn zip(
    a: &OnnxArray,
    b: &OnnxArray,
    elem: OnnxElem,
    f: impl Fn(Element, Element) -> Result<Element, String>,
) -> Result<OnnxArray, String> {
    let sizes = broadcast(a.sizes(), b.sizes())?;
    let pairs = ElementOffsets::stretched(a.sizes(), &sizes)?.zip(ElementOffsets::stretched(b.sizes(), &sizes)?);
    let mut wrong = None;
    let numbers = pairs.map(|(i, j)| {
        f(a.data().get(i), b.data().get(j)).unwrap_or_else(|message| {
            wrong = Some(message);
            Element::Int(0)
        })
    });
    let data = ArrayData::from_numbers(elem, numbers);
    wrong.map_or(Ok(OnnxArray::new(sizes, data)), Err)
}

fn float(op: &str, a: f32, b: f32, fmod: bool) -> f32 {
    match op {
        "Add" | "Sum" => a + b,
        "Sub" => a - b,
        "Mul" => a * b,
        "Div" => a / b,
        "Pow" => libm::powf(a, b),
        "Mod" if fmod => a % b,
        "Mod" => a - b * (a / b).floor(),
        "Min" => a.min(b),
        _ => a.max(b),
    }
}

/// Integers wrap, division is toward zero, the remainder has the divisor's sign.
fn int(op: &str, a: i64, b: i64) -> Result<i64, String> {
    Ok(match op {
        "Add" => a.wrapping_add(b),
        "Sub" => a.wrapping_sub(b),
        "Mul" => a.wrapping_mul(b),
        "Div" | "Mod" if b == 0 => return Err("an integer is divided by zero".into()),
        "Div" => a.wrapping_div(b),
        "Mod" => {
            let r = a.wrapping_rem(b);
            if r != 0 && (r < 0) != (b < 0) { r + b } else { r }
        }
        "Pow" => libm::pow(a as f64, b as f64) as i64,
        "Min" => a.min(b),
        _ => a.max(b),
    })
}

fn unary_float(op: &str) -> fn(f32) -> f32 {
    match op {
        "Neg" => |x| -x,
        "Abs" => f32::abs,
        "Sqrt" => f32::sqrt,
        "Floor" => f32::floor,
        "Ceil" => f32::ceil,
        "Exp" => libm::expf,
        "Log" => libm::logf,
        "Sin" => libm::sinf,
        "Cos" => libm::cosf,
        "Tanh" => libm::tanhf,
        "Erf" => libm::erff,
        "Relu" => |x| x.max(0.0),
        "Sign" => |x| if x == 0.0 { 0.0 } else { x.signum() },
        "Sigmoid" => |x| 1.0 / (1.0 + libm::expf(-x)),
        _ => |x| 1.0 / x,
    }
}
