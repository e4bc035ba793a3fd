//! Levels at which a resource warns or fails, and the sum of what was found.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check::Failure;
use crate::kind::Mistake;
use crate::status::Status;

/// Two levels of one thing: `90` warns there; `{ warn = 80, fail = 95 }` warns and fails; `{ fail = 95 }` fails only; `{}`
/// does neither.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels<T> {
    /// From here on it is a warning.
    pub warn: Option<T>,
    /// From here on it is a failure.
    pub fail: Option<T>,
}

impl<T> Levels<T> {
    /// Neither.
    pub const NONE: Self = Self { warn: None, fail: None };

    /// A warning only.
    pub const fn warn(warn: T) -> Self {
        Self { warn: Some(warn), fail: None }
    }

    /// Whether nothing is asked.
    pub fn is_none(&self) -> bool {
        self.warn.is_none() && self.fail.is_none()
    }
}

impl<T: PartialOrd + Copy> Levels<T> {
    /// What a value amounts to that should be small, and the level that it has reached.
    pub fn above(&self, value: T) -> Option<(Status, T)> {
        self.reached(|level| value >= level)
    }

    /// What a value amounts to that should be large, and the level that it is below.
    pub fn below(&self, value: T) -> Option<(Status, T)> {
        self.reached(|level| value < level)
    }

    fn reached(&self, reached: impl Fn(T) -> bool) -> Option<(Status, T)> {
        let level =
            |status, level: Option<T>| level.filter(|level| reached(*level)).map(|level| (status, level));
        level(Status::Fail, self.fail).or_else(|| level(Status::Warn, self.warn))
    }

    /// Where one of them is out of range, or they stand the wrong way round.
    pub fn mistakes(
        &self,
        key: &'static str,
        rising: bool,
        range: (T, T),
        range_says: &'static str,
    ) -> Vec<Mistake> {
        let outside = |level: &T| !(*level >= range.0 && *level <= range.1);
        let mut mistakes = Vec::new();
        if [self.warn, self.fail].iter().flatten().any(outside) {
            mistakes.push(Mistake::of(key, range_says));
        }
        if let (Some(warn), Some(fail)) = (self.warn, self.fail)
            && (if rising { warn > fail } else { warn < fail })
        {
            mistakes.push(Mistake::of(key, "`fail` comes before `warn`"));
        }
        mistakes
    }
}

impl Levels<f64> {
    /// Mistakes in levels that are percent.
    pub fn percent_mistakes(&self, key: &'static str, rising: bool) -> Vec<Mistake> {
        self.mistakes(key, rising, (0.0, 100.0), "percent go from 0 to 100")
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Levels<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, bound = "T: DeserializeOwned")]
        struct Table<T> {
            #[serde(default = "Option::default")]
            warn: Option<T>,
            #[serde(default = "Option::default")]
            fail: Option<T>,
        }
        match Value::deserialize(deserializer)? {
            table @ Value::Object(_) => {
                let Table { warn, fail } = serde_json::from_value(table).map_err(D::Error::custom)?;
                Ok(Self { warn, fail })
            }
            value => serde_json::from_value(value).map(Self::warn).map_err(D::Error::custom),
        }
    }
}

/// As it would be written.
impl<T: Serialize> Serialize for Levels<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let levels = [("warn", &self.warn), ("fail", &self.fail)];
        serializer.collect_map(levels.into_iter().filter_map(|(name, level)| Some((name, level.as_ref()?))))
    }
}

impl<T: JsonSchema> JsonSchema for Levels<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Levels_{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let level = generator.subschema_for::<T>();
        json_schema!({
            "anyOf": [
                level,
                {
                    "type": "object",
                    "properties": { "warn": level, "fail": level },
                    "additionalProperties": false,
                },
            ]
        })
    }
}

/// Whose resources are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Scope {
    /// Those of the control groups that this process is in, or the machine's where nothing limits them.
    #[default]
    Container,
    /// The machine's.
    Machine,
}

/// What was found wrong, which is as bad as the worst of it.
#[derive(Debug, Default)]
pub struct Findings(Vec<(Status, String)>);

impl Findings {
    /// Adds one thing, where a level is reached.
    pub fn add<T>(&mut self, reached: Option<(Status, T)>, says: impl FnOnce(T) -> String) {
        if let Some((status, level)) = reached {
            self.0.push((status, says(level)));
        }
    }

    /// Nothing, or all of it: the worst first.
    pub fn answer(mut self) -> Result<(), Failure> {
        self.0.sort_by_key(|(status, _)| *status != Status::Fail);
        let Some((worst, _)) = self.0.first() else { return Ok(()) };
        let worst = *worst;
        let reason = self.0.into_iter().map(|(_, says)| says).collect::<Vec<_>>().join("; ");
        Err(if worst == Status::Fail { Failure::failed(reason) } else { Failure::warning(reason) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Levels<f64> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_number_warns_and_a_table_says_what_it_does() {
        assert_eq!(read(json!(90)), Levels::warn(90.0));
        assert_eq!(read(json!({"warn": 80, "fail": 95})), Levels { warn: Some(80.0), fail: Some(95.0) });
        assert_eq!(read(json!({"fail": 95})), Levels { warn: None, fail: Some(95.0) });
        assert!(read(json!({})).is_none());
        for wrong in [json!("90"), json!({"warning": 1}), json!([90]), json!(null)] {
            serde_json::from_value::<Levels<f64>>(wrong.clone()).expect_err(&wrong.to_string());
        }
    }

    #[test]
    fn the_worse_level_decides() {
        let levels = Levels { warn: Some(80.0), fail: Some(95.0) };
        assert_eq!(levels.above(79.9), None);
        assert_eq!(levels.above(80.0), Some((Status::Warn, 80.0)));
        assert_eq!(levels.above(95.0), Some((Status::Fail, 95.0)));
        let levels = Levels { warn: Some(20), fail: Some(5) };
        assert_eq!((levels.below(20), levels.below(19)), (None, Some((Status::Warn, 20))));
        assert_eq!(levels.below(4), Some((Status::Fail, 5)));
    }

    #[test]
    fn levels_out_of_range_or_the_wrong_way_round_are_mistakes() {
        let mistakes = |levels: Levels<f64>, rising| levels.percent_mistakes("max", rising).len();
        assert_eq!(mistakes(Levels { warn: Some(80.0), fail: Some(95.0) }, true), 0);
        assert_eq!(mistakes(Levels { warn: Some(80.0), fail: Some(95.0) }, false), 1);
        assert_eq!(mistakes(Levels::warn(101.0), true) + mistakes(Levels::warn(f64::NAN), true), 2);
    }

    #[test]
    fn findings_are_as_bad_as_the_worst_which_comes_first() {
        let mut findings = Findings::default();
        findings.add(Some((Status::Warn, ())), |()| "a".to_owned());
        findings.add(Some((Status::Fail, ())), |()| "b".to_owned());
        findings.add(None::<(Status, ())>, |()| "c".to_owned());
        let failure = findings.answer().unwrap_err();
        assert_eq!((failure.status(), failure.reason()), (Status::Fail, "b; a"));
        Findings::default().answer().unwrap();
    }
}
