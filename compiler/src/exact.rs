//! Numbers in JSON that come back bit for bit, for results that are summed later or elsewhere.
//!
//! A number is written so that it reads back as the same. JSON has no number for infinities and NaN: they are their bits, as text.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of JSON, or the bits of one that JSON does not have.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum ExactNumber {
    Number(f64),
    Bits(String),
}

impl From<f64> for ExactNumber {
    fn from(x: f64) -> Self {
        if x.is_finite() { Self::Number(x) } else { Self::Bits(format!("{:016x}", x.to_bits())) }
    }
}

impl ExactNumber {
    fn number<E: serde::de::Error>(self) -> Result<f64, E> {
        match self {
            Self::Number(x) => Ok(x),
            Self::Bits(text) => {
                let bits = u64::from_str_radix(&text, 16).ok().filter(|_| text.len() == 16);
                let x = bits.map(f64::from_bits).filter(|x| !x.is_finite());
                x.ok_or_else(|| E::custom(format!("`{text}` is no number")))
            }
        }
    }
}

/// # Errors
/// As of `to`.
pub fn serialize<S: Serializer>(x: &f64, to: S) -> Result<S::Ok, S::Error> {
    ExactNumber::from(*x).serialize(to)
}

/// # Errors
/// What is read is no number.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    ExactNumber::deserialize(from)?.number()
}

/// The same for a list.
pub mod list {
    use super::ExactNumber;
    use serde::de::{SeqAccess, Visitor};
    use serde::{Deserializer, Serializer};
    use std::fmt;

    /// # Errors
    /// As of `to`.
    pub fn serialize<S: Serializer>(all: &[f64], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(all.iter().map(|&x| ExactNumber::from(x)))
    }

    /// # Errors
    /// What is read is no list of numbers.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
        from.deserialize_seq(NumberList)
    }

    /// Reads number by number: a list is never held twice.
    struct NumberList;

    impl<'de> Visitor<'de> for NumberList {
        type Value = Vec<f64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of numbers")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<f64>, A::Error> {
            let mut all = Vec::new();
            while let Some(next) = from.next_element::<ExactNumber>()? {
                all.push(next.number()?);
            }
            Ok(all)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct KeptExactly {
        #[serde(with = "super")]
        one: f64,
        #[serde(with = "super::list")]
        all: Vec<f64>,
    }

    #[test]
    fn every_number_comes_back_bit_for_bit() {
        let all = [0.1 + 0.2, -0.0, 5e-324, f64::MAX, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -f64::NAN, 3.0];
        for one in all {
            let text = serde_json::to_string(&KeptExactly { one, all: all.to_vec() }).expect("it is JSON");
            let back: KeptExactly = serde_json::from_str(&text).expect("it was written");
            assert_eq!(back.one.to_bits(), one.to_bits(), "{text}");
            assert!(back.all.iter().zip(&all).all(|(a, b)| a.to_bits() == b.to_bits()), "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_numbers() {
        for text in ["null", "\"nan\"", "\"3ff0000000000000\"", "\"7ff0\"", "[]", "{}", "true"] {
            let text = format!("{{\"one\": {text}, \"all\": []}}");
            assert!(serde_json::from_str::<KeptExactly>(&text).is_err(), "{text}");
        }
    }
}
