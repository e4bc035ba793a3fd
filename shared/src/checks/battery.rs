//! Whether the battery lasts: of a machine's own batteries and of a UPS that the kernel knows.

use std::path::Path;
use std::time::Instant;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};
use crate::node::limit::{Findings, Levels};
use crate::node::solo::{Solo, Unanswered};
use crate::node::{Machine, number, read};
use crate::status::Status;

/// No machine has more, and a folder that has is not read to its end.
const MANY: usize = 256;

/// Whether the battery lasts. A machine without one is unknown.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Battery {
    /// How much charge there must be, in percent; of several batteries in all of them together. A number warns, and
    /// `{ warn = 20, fail = 5 }` does both.
    #[serde(default = "twenty")]
    min: Levels<f64>,
    /// Whether it is a warning that the machine runs on its battery.
    #[serde(default)]
    power_plugged: bool,
}

fn twenty() -> Levels<f64> {
    Levels::warn(20.0)
}

impl Settings for Battery {
    const KIND: &'static str = "battery";
    const EXAMPLE: &'static str = "min = { warn = 20, fail = 5 }\npower_plugged = true";
    const CONTRACT: Contract = Contract::Local;
    type Check = BatteryCheck;

    fn build(self) -> Result<BatteryCheck, Vec<Mistake>> {
        let mistakes = self.min.percent_mistakes("min", false);
        if mistakes.is_empty() {
            Ok(BatteryCheck { settings: self, machine: Machine::default(), solo: Solo::default() })
        } else {
            Err(mistakes)
        }
    }
}

/// Asks the power supplies.
#[derive(Debug)]
pub struct BatteryCheck {
    settings: Battery,
    machine: Machine,
    solo: Solo,
}

/// What the power supplies tell together.
#[derive(Debug, Default)]
struct Power {
    /// Charge in percent, and how much that is of: no unit, the same for all.
    batteries: Vec<(f64, f64)>,
    discharging: bool,
    /// Whether any supply tells of the mains, and whether it is there.
    mains: Option<bool>,
}

#[async_trait::async_trait]
impl Check for BatteryCheck {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let machine = self.machine.clone();
        let power = match self.solo.ask(deadline, move || Power::of(&machine)).await {
            Ok(power) => power,
            Err(Unanswered::Broken(error)) => {
                return Err(Failure::unknown("the battery could not be asked").because(error));
            }
            Err(Unanswered::Late | Unanswered::Still) => {
                return Err(Failure::unknown("the battery does not answer"));
            }
        };
        let Some(charge) = power.charge() else { return Err(Failure::unknown("there is no battery")) };
        let mut findings = Findings::default();
        findings.add(self.settings.min.below(charge), |level| {
            format!("the battery has {charge:.0} % (limit {level} %)")
        });
        let unplugged = self.settings.power_plugged && !power.plugged();
        findings
            .add(unplugged.then_some((Status::Warn, ())), |()| "the machine runs on its battery".to_owned());
        findings.answer()
    }
}

impl Power {
    fn of(machine: &Machine) -> Self {
        let mut power = Self::default();
        let supplies = machine.path("/sys/class/power_supply").read_dir();
        for supply in supplies.into_iter().flatten().take(MANY).flatten() {
            power.add(&supply.path());
        }
        power
    }

    fn add(&mut self, supply: &Path) {
        let is = |file: &str, word: &str| read(&supply.join(file)).is_ok_and(|text| text.trim() == word);
        // The battery of a mouse is not the machine's.
        if is("scope", "Device") {
            return;
        }
        if is("type", "Battery") || is("type", "UPS") {
            let full =
                ["energy_full", "charge_full"].iter().find_map(|file| number::<f64>(&supply.join(file)));
            let capacity: Option<f64> = number(&supply.join("capacity"));
            let Some(capacity) = capacity.filter(|capacity| (0.0..=100.0).contains(capacity)) else { return };
            self.batteries
                .push((capacity, full.filter(|full| *full > 0.0 && full.is_finite()).unwrap_or(0.0)));
            self.discharging |= is("status", "Discharging");
        } else if let Some(online) = number::<u8>(&supply.join("online")) {
            self.mains = Some(self.mains.unwrap_or(false) || online > 0);
        }
    }

    /// By what each holds when full; where one does not tell that, each counts the same.
    fn charge(&self) -> Option<f64> {
        let all_tell = self.batteries.iter().all(|(_, full)| *full > 0.0);
        let weight = |full: f64| if all_tell { full } else { 1.0 };
        let whole: f64 = self.batteries.iter().map(|(_, full)| weight(*full)).sum();
        let charged: f64 = self.batteries.iter().map(|(charge, full)| charge * weight(*full)).sum();
        (whole > 0.0).then(|| charged / whole)
    }

    fn plugged(&self) -> bool {
        self.mains.unwrap_or(!self.discharging)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::node::fixture::Fixture;

    fn laptop() -> Fixture {
        Fixture::new(&[
            ("/sys/class/power_supply/AC/type", "Mains\n"),
            ("/sys/class/power_supply/AC/online", "1\n"),
            ("/sys/class/power_supply/BAT0/type", "Battery\n"),
            ("/sys/class/power_supply/BAT0/capacity", "20\n"),
            ("/sys/class/power_supply/BAT0/status", "Charging\n"),
            ("/sys/class/power_supply/mouse/type", "Battery\n"),
            ("/sys/class/power_supply/mouse/scope", "Device\n"),
            ("/sys/class/power_supply/mouse/capacity", "1\n"),
        ])
    }

    async fn ask(json: &str, fixture: &Fixture) -> Option<(Status, String)> {
        let settings: Battery = serde_json::from_str(json).unwrap();
        let check = BatteryCheck { machine: fixture.machine(), ..settings.build().unwrap() };
        let failure = check.run(Instant::now() + Duration::from_secs(20)).await.err()?;
        Some((failure.status(), failure.reason().to_owned()))
    }

    #[tokio::test]
    async fn little_charge_warns_and_less_fails() {
        let machine = laptop();
        let json = r#"{"min": {"warn": 20, "fail": 5}}"#;
        assert_eq!(ask(json, &machine).await, None);
        machine.write("/sys/class/power_supply/BAT0/capacity", "19");
        let reason = "the battery has 19 % (limit 20 %)".to_owned();
        assert_eq!(ask(json, &machine).await, Some((Status::Warn, reason)));
        machine.write("/sys/class/power_supply/BAT0/capacity", "4");
        assert_eq!(ask(json, &machine).await.unwrap().0, Status::Fail);
    }

    #[tokio::test]
    async fn two_batteries_count_by_what_they_hold() {
        let machine = laptop();
        machine.write("/sys/class/power_supply/BAT0/capacity", "5");
        machine.write("/sys/class/power_supply/BAT1/type", "Battery");
        machine.write("/sys/class/power_supply/BAT1/capacity", "95");
        assert_eq!(ask(r#"{"min": 50}"#, &machine).await, None);
        machine.write("/sys/class/power_supply/BAT0/energy_full", "30000000");
        machine.write("/sys/class/power_supply/BAT1/energy_full", "10000000");
        let told = ask(r#"{"min": 50}"#, &machine).await;
        assert_eq!(told.unwrap().1, "the battery has 28 % (limit 50 %)");
    }

    #[tokio::test]
    async fn running_on_the_battery_is_told_where_it_is_asked_for() {
        let machine = laptop();
        let json = r#"{"power_plugged": true}"#;
        assert_eq!(ask(json, &machine).await, None);
        machine.write("/sys/class/power_supply/AC/online", "0");
        let told = Some((Status::Warn, "the machine runs on its battery".to_owned()));
        assert_eq!(ask(json, &machine).await, told);
        assert_eq!(ask("{}", &machine).await, None);
    }

    #[tokio::test]
    async fn without_a_battery_nobody_can_tell() {
        let told = ask("{}", &Fixture::new(&[])).await;
        assert_eq!(told, Some((Status::Unknown, "there is no battery".to_owned())));
        let machine = Fixture::new(&[("/sys/class/power_supply/BAT0/type", "Battery")]);
        for nonsense in ["", "x", "-1", "101", "NaN"] {
            machine.write("/sys/class/power_supply/BAT0/capacity", nonsense);
            assert_eq!(ask("{}", &machine).await.unwrap().0, Status::Unknown, "{nonsense}");
        }
    }

    #[test]
    fn senseless_settings_are_mistakes() {
        let settings: Battery = serde_json::from_str(r#"{"min": {"warn": 5, "fail": 20}}"#).unwrap();
        assert_eq!(settings.build().unwrap_err()[0].key, Some("min"));
    }
}
