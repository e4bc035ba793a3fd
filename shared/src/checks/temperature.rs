//! Whether the machine is too hot, by the kernel's own sensors (hwmon).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};
use crate::node::limit::{Findings, Levels};
use crate::node::solo::{Solo, Unanswered};
use crate::node::{Machine, number, read};

/// No machine has more, and a folder that has is not read to its end.
const MANY: usize = 1_024;

/// Whether the machine is too hot, by the kernel's sensors. A machine without the sensor that is asked for is unknown.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Temperature {
    /// The sensors of this device alone, such as `coretemp`, `k10temp`, `cpu_thermal` or `nvme`; else all.
    device: Option<String>,
    /// The sensor with this label alone, such as `Package id 0`.
    label: Option<String>,
    /// Degrees Celsius: a number warns, and `{ warn = 80, fail = 95 }` does both. Without it each sensor's own: its high
    /// limit warns, and its critical one fails.
    max: Option<Levels<f64>>,
}

impl Settings for Temperature {
    const KIND: &'static str = "temperature";
    const EXAMPLE: &'static str = "device = \"coretemp\"\nmax = { warn = 80, fail = 95 }";
    const CONTRACT: Contract = Contract::Local;
    type Check = TemperatureCheck;

    fn build(self) -> Result<TemperatureCheck, Vec<Mistake>> {
        let says = "degrees go from -273 to 1000";
        let mistakes =
            self.max.map_or_else(Vec::new, |max| max.mistakes("max", true, (-273.0, 1_000.0), says));
        if mistakes.is_empty() {
            Ok(TemperatureCheck { settings: self, machine: Machine::default(), solo: Solo::default() })
        } else {
            Err(mistakes)
        }
    }
}

/// Asks the sensors: some take long to answer.
#[derive(Debug)]
pub struct TemperatureCheck {
    settings: Temperature,
    machine: Machine,
    solo: Solo,
}

/// One sensor's answer, in degrees Celsius.
#[derive(Clone, Debug, PartialEq)]
struct Sensor {
    device: String,
    label: Option<String>,
    now: f64,
    high: Option<f64>,
    critical: Option<f64>,
}

#[async_trait::async_trait]
impl Check for TemperatureCheck {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let (machine, settings) = (self.machine.clone(), self.settings.clone());
        match self.solo.ask(deadline, move || sensors(&machine, &settings)).await {
            Ok(sensors) if sensors.is_empty() => Err(Failure::unknown("no such sensor tells a temperature")),
            Ok(sensors) => self.settings.judge(&sensors),
            Err(Unanswered::Broken(error)) => {
                Err(Failure::unknown("the sensors could not be asked").because(error))
            }
            Err(Unanswered::Late | Unanswered::Still) => Err(Failure::unknown("the sensors do not answer")),
        }
    }
}

impl Temperature {
    fn judge(&self, sensors: &[Sensor]) -> Result<(), Failure> {
        let mut findings = Findings::default();
        for sensor in sensors {
            let own = Levels { warn: sensor.high, fail: sensor.critical };
            findings.add(self.max.unwrap_or(own).above(sensor.now), |level| {
                let Sensor { device, label, now, .. } = sensor;
                let label = label.as_ref().map_or_else(String::new, |label| format!(" ({label})"));
                format!("{device}{label} has {now:.1} °C (limit {level} °C)")
            });
        }
        findings.answer()
    }
}

/// The sensors that are asked for and that answer: a disk that sleeps does not.
fn sensors(machine: &Machine, wanted: &Temperature) -> Vec<Sensor> {
    let mut found = Vec::new();
    for chip in entries(&machine.path("/sys/class/hwmon")).unwrap_or_default() {
        // Drivers of old kernels have their files one folder below.
        for folder in [chip.clone(), chip.join("device")] {
            let Some(device) = word(&folder.join("name")) else { continue };
            if wanted.device.as_ref().is_some_and(|wanted| *wanted != device) {
                continue;
            }
            let inputs = entries(&folder).unwrap_or_default().into_iter().filter_map(|path| input(&path));
            found.extend(inputs.filter_map(|input| sensor(&folder, &input, &device)));
            break;
        }
    }
    found.retain(|sensor: &Sensor| wanted.label.is_none() || sensor.label == wanted.label);
    found
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries: io::Result<Vec<_>> = folder.read_dir()?.take(MANY).map(|entry| Ok(entry?.path())).collect();
    entries.map(|mut paths| {
        paths.sort();
        paths
    })
}

/// `temp1` of `temp1_input`.
fn input(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix("_input")?;
    name.starts_with("temp").then(|| name.to_owned())
}

fn sensor(folder: &Path, input: &str, device: &str) -> Option<Sensor> {
    let of = |what: &str| folder.join(format!("{input}_{what}"));
    let degrees = |what: &str| number::<i32>(&of(what)).map(|thousandths| f64::from(thousandths) / 1_000.0);
    // Where a sensor has no such limit, some drivers tell 0, less, or more than any silicon stands.
    let limit = |what: &str| degrees(what).filter(|limit| (1.0..200.0).contains(limit));
    Some(Sensor {
        device: device.to_owned(),
        label: word(&of("label")),
        now: degrees("input")?,
        high: limit("max"),
        critical: limit("crit"),
    })
}

fn word(path: &Path) -> Option<String> {
    Some(read(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::node::fixture::Fixture;
    use crate::status::Status;

    fn laptop() -> Fixture {
        Fixture::new(&[
            ("/sys/class/hwmon/hwmon0/name", "nvme\n"),
            ("/sys/class/hwmon/hwmon0/temp1_input", "41850\n"),
            ("/sys/class/hwmon/hwmon0/temp1_max", "65261850\n"),
            ("/sys/class/hwmon/hwmon1/name", "coretemp\n"),
            ("/sys/class/hwmon/hwmon1/temp1_label", "Package id 0\n"),
            ("/sys/class/hwmon/hwmon1/temp1_input", "71000\n"),
            ("/sys/class/hwmon/hwmon1/temp1_max", "80000\n"),
            ("/sys/class/hwmon/hwmon1/temp1_crit", "100000\n"),
            ("/sys/class/hwmon/hwmon1/temp2_label", "Core 0\n"),
            ("/sys/class/hwmon/hwmon1/temp2_input", "60000\n"),
            ("/sys/class/hwmon/hwmon1/temp3_input", "\n"),
            ("/sys/class/hwmon/hwmon1/fan1_input", "99000\n"),
            ("/sys/class/hwmon/hwmon2/device/name", "old\n"),
            ("/sys/class/hwmon/hwmon2/device/temp1_input", "-5000\n"),
        ])
    }

    async fn ask(json: &str, fixture: &Fixture) -> Option<(Status, String)> {
        let settings: Temperature = serde_json::from_str(json).unwrap();
        let check = TemperatureCheck { machine: fixture.machine(), ..settings.build().unwrap() };
        let failure = check.run(Instant::now() + Duration::from_secs(20)).await.err()?;
        Some((failure.status(), failure.reason().to_owned()))
    }

    #[tokio::test]
    async fn each_sensors_own_limits_count_where_none_are_given() {
        let machine = laptop();
        assert_eq!(ask("{}", &machine).await, None);
        machine.write("/sys/class/hwmon/hwmon1/temp1_input", "80000");
        let reason = "coretemp (Package id 0) has 80.0 °C (limit 80 °C)".to_owned();
        assert_eq!(ask("{}", &machine).await, Some((Status::Warn, reason)));
        machine.write("/sys/class/hwmon/hwmon1/temp1_input", "100500");
        assert_eq!(ask("{}", &machine).await.unwrap().0, Status::Fail);
    }

    #[tokio::test]
    async fn sensors_are_chosen_by_device_and_label() {
        let machine = laptop();
        let (_, reason) = ask(r#"{"max": 41}"#, &machine).await.unwrap();
        assert_eq!(reason.matches("°C (").count(), 3, "{reason}");
        let (_, reason) = ask(r#"{"max": 41, "device": "nvme"}"#, &machine).await.unwrap();
        assert_eq!(reason, "nvme has 41.9 °C (limit 41 °C)");
        let (_, reason) = ask(r#"{"max": 41, "label": "Core 0"}"#, &machine).await.unwrap();
        assert_eq!(reason, "coretemp (Core 0) has 60.0 °C (limit 41 °C)");
        assert_eq!(ask(r#"{"max": 0, "device": "old"}"#, &machine).await, None);
    }

    #[tokio::test]
    async fn without_such_a_sensor_nobody_can_tell() {
        let (laptop, bare) = (laptop(), Fixture::new(&[]));
        let none = Some((Status::Unknown, "no such sensor tells a temperature".to_owned()));
        assert_eq!(ask("{}", &bare).await, none);
        assert_eq!(ask(r#"{"device": "k10temp"}"#, &laptop).await, none);
        assert_eq!(ask(r#"{"device": "nvme", "label": "Core 0"}"#, &laptop).await, none);
    }

    #[test]
    fn senseless_settings_are_mistakes() {
        for json in [r#"{"max": 1001}"#, r#"{"max": {"warn": 90, "fail": 80}}"#] {
            let settings: Temperature = serde_json::from_str(json).unwrap();
            assert_eq!(settings.build().unwrap_err()[0].key, Some("max"));
        }
    }
}
