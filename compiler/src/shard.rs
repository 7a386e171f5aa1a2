//! Shares of the windows of a run, for processes that never meet: `--shard 0/3` is the first of three.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Shards of a run, at most.
pub const SHARDS_MAX: u32 = 65536;

/// One of several shares of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Which, from 0.
    pub index: u32,
    /// How many there are.
    pub count: u32,
}

impl Shard {
    /// The shard with this index, if there is one.
    pub fn new(index: u32, count: u32) -> Result<Self, String> {
        if !(1..=SHARDS_MAX).contains(&count) {
            return Err(format!("{count} shards: there can be 1 to {SHARDS_MAX}"));
        }
        if index >= count {
            return Err(format!("of {count} shards the last is {}/{count}, for shards count from 0", count - 1));
        }
        Ok(Self { index, count })
    }

    /// The shard of this task of Slurm. Every task of an array has a shard, and so has every task of `srun`; with both, every task of
    /// every element of the array. `variable` reads the environment.
    ///
    /// # Errors
    /// The variables of Slurm are not there, or are no numbers that fit.
    pub fn of_slurm(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let number = |name: &str| -> Result<Option<u32>, String> {
            let Some(text) = variable(name) else { return Ok(None) };
            text.parse().map(Some).map_err(|_| format!("{name} is `{text}`, which is no number"))
        };
        let needed = |name: &str| number(name)?.ok_or_else(|| format!("{name} is not set"));
        let array = match number("SLURM_ARRAY_TASK_ID")? {
            Some(id) => {
                let (first, step) = (needed("SLURM_ARRAY_TASK_MIN")?, number("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1));
                let beyond = id.checked_sub(first).filter(|beyond| beyond.is_multiple_of(step.max(1)));
                let beyond = beyond.ok_or("the indices of the array are not evenly spaced: use --array=0-N")?;
                Some((beyond / step.max(1), needed("SLURM_ARRAY_TASK_COUNT")?))
            }
            None => None,
        };
        // Outside of `srun`, the batch script of an array's element has a number of tasks, but runs once.
        let tasks = match (number("SLURM_STEP_NUM_TASKS")?, array) {
            (Some(tasks), _) => Some((needed("SLURM_PROCID")?, tasks)),
            (None, Some(_)) => None,
            (None, None) => match number("SLURM_NTASKS")? {
                Some(tasks) => Some((needed("SLURM_PROCID")?, tasks)),
                None => None,
            },
        };
        let ((element, elements), (task, tasks)) = match (array, tasks) {
            (None, None) => {
                return Err("this is no task of Slurm: neither SLURM_ARRAY_TASK_ID nor SLURM_NTASKS is set".into());
            }
            (array, tasks) => (array.unwrap_or((0, 1)), tasks.unwrap_or((0, 1))),
        };
        let all = |a: u32, b: u32| a.checked_mul(b).ok_or(format!("more than {SHARDS_MAX} shards"));
        let index = all(element, tasks)?.checked_add(task).ok_or("the tasks are too many")?;
        Self::new(index, all(elements, tasks)?)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        let (index, count) =
            numbers.ok_or_else(|| format!("`{text}` is no shard: write 0/3, 1/3 and 2/3, or slurm"))?;
        Self::new(index, count)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_count_from_0() {
        assert_eq!("2/3".parse(), Ok(Shard { index: 2, count: 3 }));
        for wrong in ["3/3", "0/0", "-1/3", "1", "", "a/b", "1/2/3", "0/65537", "4294967296/5"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    /// The shard that an environment gives: `NAME=VALUE`, without `SLURM_`.
    fn of(environment: &[&str]) -> Result<String, String> {
        let variable = |name: &str| {
            let pairs = environment.iter().filter_map(|pair| pair.split_once('='));
            let found = pairs.into_iter().find(|(key, _)| name.strip_prefix("SLURM_") == Some(key));
            found.map(|(_, value)| value.to_string())
        };
        Shard::of_slurm(variable).map(|shard| shard.to_string())
    }

    #[test]
    fn slurm_says_which_shard_a_task_is() {
        let array = ["ARRAY_TASK_ID=4", "ARRAY_TASK_MIN=1", "ARRAY_TASK_COUNT=8", "ARRAY_TASK_STEP=1"];
        assert_eq!(of(&array), Ok("3/8".into()));
        // The batch script of an element runs once, however many tasks the job asks for.
        assert_eq!(of(&[&array[..], &["NTASKS=2", "PROCID=0"]].concat()), Ok("3/8".into()));
        assert_eq!(of(&[&array[..], &["STEP_NUM_TASKS=2", "PROCID=1"]].concat()), Ok("7/16".into()));
        assert_eq!(of(&["PROCID=2", "NTASKS=4"]), Ok("2/4".into()));
        let stepped = ["ARRAY_TASK_ID=8", "ARRAY_TASK_MIN=0", "ARRAY_TASK_COUNT=4", "ARRAY_TASK_STEP=4"];
        assert_eq!(of(&stepped), Ok("2/4".into()));
        let uneven = ["ARRAY_TASK_ID=9", "ARRAY_TASK_MIN=0", "ARRAY_TASK_COUNT=4", "ARRAY_TASK_STEP=4"];
        for wrong in [&[][..], &["PROCID=0"], &["NTASKS=2"], &["PROCID=2", "NTASKS=2"], &["NTASKS=x"], &uneven] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
    }
}
