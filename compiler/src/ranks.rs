//! Processes that share one piece of work: ranks, as MPI calls them.
//!
//! Law: no result depends on the number of ranks. Ranks exchange results of items, and every rank puts them in the order of the items.
//! All ranks run the same program on the same input, so they meet in the same exchanges in the same order.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::ErrorCode;
use std::fmt;

/// How a process reaches the others.
///
/// ```
/// use snnc::ranks::{Alone, Ranks};
/// assert!(Alone.is_first());
/// assert_eq!(Alone.exchange(vec![b"to myself".to_vec()])?, [b"to myself"]);
/// # Ok::<(), snnc_ir::Diagnostic>(())
/// ```
pub trait Ranks: Sync + fmt::Debug {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// How many there are, one at least.
    fn count(&self) -> usize;

    /// Sends message `i` to rank `i`. Returns what every rank sent to this one, in the order of the ranks. Every rank calls it, and
    /// none returns before it has all messages.
    ///
    /// # Errors
    /// A rank cannot be reached.
    fn exchange(&self, messages: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Diagnostic>;

    /// Whether this process writes the files and says what happens.
    fn is_first(&self) -> bool {
        self.rank() == 0
    }
}

/// One process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Ranks for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn count(&self) -> usize {
        1
    }

    fn exchange(&self, messages: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Diagnostic> {
        Ok(messages)
    }
}

/// What every rank has, in the order of the ranks.
///
/// # Errors
/// A rank cannot be reached, or sends something else.
pub fn gathered<T: Serialize + DeserializeOwned>(ranks: &dyn Ranks, own: &T) -> Result<Vec<T>, Diagnostic> {
    let bytes = serde_json::to_vec(own).map_err(|e| broken(&e))?;
    let all = ranks.exchange(vec![bytes; ranks.count()])?;
    all.iter().map(|bytes| serde_json::from_slice(bytes).map_err(|e| broken(&e))).collect()
}

/// What rank 0 makes, on every rank. The others make nothing.
///
/// # Errors
/// As `make` of rank 0 does; a rank cannot be reached.
pub fn from_first(
    ranks: &dyn Ranks,
    make: impl FnOnce() -> Result<Vec<u8>, Diagnostic>,
) -> Result<Vec<u8>, Diagnostic> {
    let own = if ranks.is_first() { make()? } else { Vec::new() };
    Ok(ranks.exchange(vec![own; ranks.count()])?.swap_remove(0))
}

/// Whether any rank says yes.
///
/// # Errors
/// A rank cannot be reached.
pub fn any(ranks: &dyn Ranks, own: bool) -> Result<bool, Diagnostic> {
    if ranks.count() == 1 {
        return Ok(own);
    }
    Ok(ranks.exchange(vec![vec![u8::from(own)]; ranks.count()])?.iter().any(|said| said != &[0]))
}

/// Refuses ranks that would compute something else than this one. `own`: fields that say what.
///
/// # Errors
/// Ranks differ, in a field or in the build. The message names what differs, and both values.
pub fn agree(ranks: &dyn Ranks, own: &impl Serialize) -> Result<(), Diagnostic> {
    if ranks.count() == 1 {
        return Ok(());
    }
    let mut own = serde_json::to_value(own).map_err(|e| broken(&e))?;
    own["snnc"] = Json::from(vec![Some(env!("CARGO_PKG_VERSION")), option_env!("SNNC_COMMIT")]);
    let all = gathered(ranks, &own)?;
    for (rank, other) in all.iter().enumerate() {
        let fields = all[0].as_object().into_iter().flatten();
        let differs = |(key, value): (&String, &Json)| {
            let other = other.get(key).unwrap_or(&Json::Null);
            (other != value).then(|| format!("{key} is {value} on rank 0 and {other} on rank {rank}"))
        };
        let differing: Vec<String> = fields.filter_map(differs).collect();
        if !differing.is_empty() {
            let message = format!("the ranks would compute different things: {}", differing.join(", "));
            let note = "start the same snnc with the same options, on the same files and one kind of processor";
            return Err(Diagnostic::new("", message).code(ErrorCode::RUN).note(note));
        }
    }
    Ok(())
}

fn broken(error: &serde_json::Error) -> Diagnostic {
    Diagnostic::new("", format!("ranks do not understand each other: {error}"))
        .code(ErrorCode::RUN)
        .note("start the same snnc on every rank")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A rank that hears the same from all others.
    #[derive(Debug)]
    struct Echo(&'static str);

    impl Ranks for Echo {
        fn rank(&self) -> usize {
            1
        }

        fn count(&self) -> usize {
            3
        }

        fn exchange(&self, messages: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Diagnostic> {
            let other = self.0.as_bytes().to_vec();
            Ok(vec![other.clone(), messages[1].clone(), other])
        }
    }

    #[test]
    fn ranks_that_differ_are_refused_by_what_differs() {
        let own = json!({"isa": "avx2", "text": "a"});
        let other = |isa: &str| {
            let build = [Some(env!("CARGO_PKG_VERSION")), option_env!("SNNC_COMMIT")];
            Echo(json!({"isa": isa, "text": "a", "snnc": build}).to_string().leak())
        };
        assert!(agree(&Alone, &own).is_ok());
        assert!(agree(&other("avx2"), &own).is_ok());
        let told = agree(&other("avx512"), &own).expect_err("one field differs");
        assert!(told.message.ends_with(r#"isa is "avx512" on rank 0 and "avx2" on rank 1"#), "{}", told.message);
        assert!(agree(&Echo("nonsense"), &own).is_err());
    }

    #[test]
    fn one_rank_that_stops_stops_all() {
        assert!(any(&Echo("\u{1}"), false).is_ok_and(|stop| stop));
        assert!(any(&Echo("\0"), false).is_ok_and(|stop| !stop));
        assert!(any(&Alone, true).is_ok_and(|stop| stop));
    }

    #[test]
    fn only_the_first_makes() {
        let made = from_first(&Echo("of rank 0"), || panic!("this is rank 1")).expect("it is sent");
        assert_eq!(made, b"of rank 0");
    }
}
