//! How long work waits for want of a resource: the kernel's pressure stall information (PSI).

use std::io;

use super::cgroup::Groups;
use super::limit::{Findings, Levels, Scope};
use super::{Machine, read};
use crate::check::Failure;

/// Adds what pressure there is, where somebody asks for it.
pub fn judge(
    machine: &Machine,
    resource: &str,
    scope: Scope,
    levels: &Levels<f64>,
    findings: &mut Findings,
) -> Result<(), Failure> {
    if levels.is_none() {
        return Ok(());
    }
    let share = some(machine, resource, scope)
        .map_err(|error| Failure::unknown("this kernel tells no pressure").because(error))?;
    findings.add(levels.above(share), |level| {
        format!("something waited for {resource} in {share:.1} % of the last 10 s (limit {level} %)")
    });
    Ok(())
}

/// The share of the last ten seconds, in percent, in which some task here waited for `resource` (`cpu`, `memory`, `io`).
/// It is told of this process's own control group where that tells it, else of the whole machine.
fn some(machine: &Machine, resource: &str, scope: Scope) -> io::Result<f64> {
    let group = if scope == Scope::Container { Groups::own(machine) } else { None };
    let told = group.and_then(|group| read(&group.join(format!("{resource}.pressure"))).ok());
    let text = told.map_or_else(|| machine.read(format!("/proc/pressure/{resource}")), Ok)?;
    avg10(&text).ok_or_else(|| io::Error::other("not of the form that this kernel should tell it in"))
}

fn avg10(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let share = line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    share.parse().ok().filter(|share: &f64| share.is_finite())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, unified};
    use super::*;

    #[test]
    fn the_own_group_tells_before_the_machine() {
        let line =
            |share: &str| format!("some avg10={share} avg60=1.00 avg300=1.00 total=9\nfull avg10=99.00\n");
        let fixture = Fixture::new(&[("/proc/pressure/memory", &line("2.50"))]);
        assert_eq!(
            some(&fixture.machine(), "memory", Scope::Container).unwrap().to_bits(),
            2.5_f64.to_bits()
        );
        fixture.add(&unified("/app"));
        fixture.write("/sys/fs/cgroup/app/memory.pressure", &line("40.00"));
        assert_eq!(
            some(&fixture.machine(), "memory", Scope::Container).unwrap().to_bits(),
            40.0_f64.to_bits()
        );
        assert_eq!(some(&fixture.machine(), "memory", Scope::Machine).unwrap().to_bits(), 2.5_f64.to_bits());
    }

    #[test]
    fn a_kernel_without_it_or_that_tells_nonsense_is_an_error() {
        let fixture = Fixture::new(&[]);
        some(&fixture.machine(), "cpu", Scope::Container).unwrap_err();
        for text in ["", "some", "some avg10=", "some avg10=NaN", "full avg10=1.0"] {
            fixture.write("/proc/pressure/cpu", text);
            some(&fixture.machine(), "cpu", Scope::Container).expect_err(text);
        }
    }
}
