//! Where a configuration comes from. It is read anew by whoever needs it: a process that was forked has none of its parent's.

use std::path::{Path, PathBuf};

use pyo3::PyResult;
use pyo3::exceptions::PyValueError;
use shared::config::{self, Configuration, Problem, Surroundings};

/// A file, or a text.
#[derive(Debug)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// A text, and where the paths of secret files in it begin.
    Text { text: String, folder: PathBuf },
}

/// A problem as Python sees it: code, whether it only warns, line, column, what is wrong.
pub type Told = (&'static str, bool, Option<usize>, Option<usize>, String);

/// What there is to say of a configuration: its problems, its subsets where it can be used, whether it has a secret path.
pub type Reading = (Vec<Told>, Option<Vec<String>>, bool);

impl Source {
    fn read(&self) -> config::Reading {
        match self {
            Self::File(path) => Configuration::read(path),
            Self::Text { text, folder } => Configuration::parse(text, surroundings(folder)),
        }
    }

    /// What there is to say of it.
    pub fn describe(&self) -> Reading {
        let config::Reading { configuration, problems } = self.read();
        let subsets = |known: &Configuration| known.subsets().map(ToOwned::to_owned).collect();
        let has_secret = |known: &Configuration| !known.server.access.path_secret.expose().is_empty();
        let (subsets, has_secret) =
            (configuration.as_ref().map(subsets), configuration.as_ref().is_some_and(has_secret));
        (problems.into_iter().map(told).collect(), subsets, has_secret)
    }

    /// What it says; else a `ValueError` with every mistake.
    pub fn configuration(&self) -> PyResult<Configuration> {
        let config::Reading { configuration, problems } = self.read();
        configuration.ok_or_else(|| {
            let mistakes: Vec<_> = problems.iter().map(ToString::to_string).collect();
            PyValueError::new_err(mistakes.join("\n"))
        })
    }
}

fn surroundings(folder: &Path) -> Surroundings<'_> {
    Surroundings { variable: &config::variable, folder }
}

fn told(problem: Problem) -> Told {
    let Problem { code, place, what } = problem;
    (code.as_str(), code.is_warning(), place.map(|place| place.line), place.map(|place| place.column), what)
}
