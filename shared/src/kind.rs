//! What a kind of check is: settings that a configuration gives, from which a check is made.
//!
//! The list of all kinds is [`crate::checks::KINDS`]. Validation, the commands that tell of the kinds, the JSON Schema,
//! the documentation's tables and the contract tests walk it, so that a kind is told of in its own file alone.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::background::Background;
use crate::check::Check;

/// The settings of a kind of check, as they stand in a configuration.
///
/// The documentation comments of the type and of its fields are what users read of them: what it is, unit, default and
/// limits. Each field has a default or is required. Secrets are of the type [`crate::settings::Secret`] or
/// [`crate::settings::Url`], durations of the type [`crate::settings::Span`]. Derive `Deserialize` with
/// `#[serde(deny_unknown_fields)]`, and `JsonSchema`.
pub trait Settings: DeserializeOwned + JsonSchema {
    /// The kind's word: `type = "…"`.
    const KIND: &'static str;

    /// Settings as a user would write them, in TOML, without `type`: shown in the documentation, and tested.
    const EXAMPLE: &'static str;

    /// How the kind is held to the contract that all kinds share.
    const CONTRACT: Contract;

    /// More settings that are held to it, as those of `CONTRACT`, where a kind has more than one way to ask.
    const MORE_CONTRACTS: &'static [&'static str] = &[];

    /// What is made of them.
    type Check: Check + 'static;

    /// Makes the check. Opens nothing and waits for nothing: what is wrong here is wrong with the settings, and all of
    /// it is told at once.
    fn build(self) -> Result<Self::Check, Vec<Mistake>>;
}

/// How a kind of check is held to the contract that all kinds share: nothing that a peer does or fails to do makes it
/// hang, panic, pass, or tell a secret.
#[derive(Clone, Copy, Debug)]
pub enum Contract {
    /// It asks a peer. The settings, in TOML, by which it would ask the one at `{peer}` (`127.0.0.1:PORT`), with the
    /// password `S3cret` wherever it takes one.
    Peer(&'static str),
    /// The same, with a peer that may answer in many ways: whatever it says, the check cannot be expected to fail.
    /// (Does a port accept connections? A black hole's does.)
    AnyAnswer(&'static str),
    /// It asks this machine.
    Local,
}

impl Contract {
    /// The settings, where there is a peer.
    pub fn settings(self) -> Option<&'static str> {
        match self {
            Self::Peer(settings) | Self::AnyAnswer(settings) => Some(settings),
            Self::Local => None,
        }
    }
}

/// One thing that is wrong with settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The setting, where it is one.
    pub key: Option<&'static str>,
    /// What is wrong, as a sentence without capital and full stop. It repeats no secret.
    pub what: Cow<'static, str>,
}

impl Mistake {
    /// One setting is wrong.
    pub fn of(key: &'static str, what: impl Into<Cow<'static, str>>) -> Self {
        Self { key: Some(key), what: what.into() }
    }

    /// They are wrong together.
    pub fn together(what: impl Into<Cow<'static, str>>) -> Self {
        Self { key: None, what: what.into() }
    }
}

/// Why no check can be made of settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// They are not of the form that the kind's schema describes.
    Form {
        /// Where, from the check's table downwards: `a.b[2]`. Empty for the table itself.
        path: String,
        /// What the deserializer says. It may repeat the value, which may be a secret: not for any output.
        why: String,
    },
    /// They are of that form, and make no sense.
    Sense(Vec<Mistake>),
}

/// One kind of check, whatever its settings.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its word: `type = "…"`.
    pub name: &'static str,
    /// Settings as a user would write them, in TOML, without `type`.
    pub example: &'static str,
    /// How it is held to the contract.
    pub contract: Contract,
    /// More settings that are held to it, for other ways to ask.
    pub more_contracts: &'static [&'static str],
    schema: fn(&mut SchemaGenerator) -> Schema,
    build: fn(Value) -> Result<Box<dyn Check>, Refused>,
}

impl Kind {
    /// The kind that these settings belong to.
    pub const fn of<S: Settings>() -> Self {
        Self {
            name: S::KIND,
            example: S::EXAMPLE,
            contract: S::CONTRACT,
            more_contracts: S::MORE_CONTRACTS,
            schema: S::json_schema,
            build: build::<S>,
        }
    }

    /// The form of its settings, with their documentation.
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        (self.schema)(generator)
    }

    /// Makes a check of settings, which are the check's table without what all checks share.
    pub fn build(&self, settings: Value) -> Result<Box<dyn Check>, Refused> {
        (self.build)(settings)
    }
}

fn build<S: Settings>(settings: Value) -> Result<Box<dyn Check>, Refused> {
    let settings: S = serde_path_to_error::deserialize(settings)
        .map_err(|error| Refused::Form { path: error.path().to_string(), why: error.inner().to_string() })?;
    match settings.build() {
        Ok(check) => Ok(Background::where_asked_for(check)),
        Err(mistakes) => Err(Refused::Sense(mistakes)),
    }
}
