//! The configuration file: what is checked, how, and who is told.
//!
//! A file is read in one pass that finds every mistake in it, each with its line, its code and, for a name that nobody knows,
//! the nearest one that somebody does. No value of the file, and nothing that it takes from the environment or from secret
//! files, is ever part of what is told. Making the checks opens nothing: a configuration that is right may describe a world
//! that is not there.

mod checks;
mod credentials;
mod form;
mod node;
mod problem;
pub mod schema;
mod subsets;
mod surroundings;
mod tables;

use std::path::Path;
use std::sync::Arc;

pub use self::checks::Configured;
pub use self::credentials::of_urls as credentials_of_urls;
pub use self::problem::{Code, Place, Problem};
pub use self::surroundings::{Surroundings, secret_file, variable};
pub use self::tables::{Access, Common, Detail, Https, Server, Service};

use self::form::{Reader, nearest};
use self::node::{Datum, Table, get};
use self::problem::Found;
use self::subsets::Subset;
use self::surroundings::{Unreadable, read_bounded};
use crate::runner::Named;
use crate::settings::Secret;

/// The most that a file may hold.
const LARGEST: u64 = 1024 * 1024;

/// The tables of a file.
const TABLES: [&str; 4] = ["service", "server", "subsets", "checks"];

/// Where the clients of databases and storages look for the secrets that a file leaves out.
const VARIABLES: [&str; 9] = [
    "PGPASSWORD",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_TOKEN",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
];

/// What a file says.
#[derive(Debug, Default)]
pub struct Configuration {
    /// What is deployed here.
    pub service: Service,
    /// How answers are served.
    pub server: Server,
    /// The checks, in the order of the file.
    pub checks: Vec<Configured>,
    subsets: Vec<Subset>,
    secrets: Vec<Secret>,
}

/// What came of a reading.
#[derive(Debug)]
pub struct Reading {
    /// What the file says, where nothing is wrong with it but what only warns.
    pub configuration: Option<Configuration>,
    /// Every mistake and warning, in the order of the file.
    pub problems: Vec<Problem>,
}

impl Configuration {
    /// Reads a file, with the environment of this process.
    pub fn read(path: &Path) -> Reading {
        let wrong = |code, what: String| Reading {
            configuration: None,
            problems: vec![Problem { code, place: None, what }],
        };
        match read_bounded(path, LARGEST) {
            Ok(text) => {
                let folder = path.parent().unwrap_or(Path::new(""));
                Self::parse(&text, Surroundings { variable: &variable, folder })
            }
            Err(Unreadable::TooLarge(_)) => wrong(Code::TooLarge, "the file is larger than 1 MiB".to_owned()),
            Err(Unreadable::NotText) => wrong(Code::Syntax, "the file is not UTF-8 text".to_owned()),
            Err(unreadable) => wrong(Code::Unreadable, format!("the file {unreadable}")),
        }
    }

    /// Reads a text.
    pub fn parse(text: &str, surroundings: Surroundings<'_>) -> Reading {
        let mut reader = Reader { surroundings, found: Found::default(), secrets: Vec::new() };
        let document = node::read(text, &mut reader.found);
        let mut configuration = Self::default();
        if reader.found.is_empty() {
            configuration.take(&document, &mut reader);
        }
        for value in VARIABLES.into_iter().filter_map(|name| (surroundings.variable)(name)?.ok()) {
            reader.keep(&value);
        }
        configuration.secrets = std::mem::take(&mut reader.secrets);
        let problems = reader.found.into_problems(text);
        let usable = problems.iter().all(|problem| problem.code.is_warning());
        Reading { configuration: usable.then_some(configuration), problems }
    }

    fn take(&mut self, document: &Table, reader: &mut Reader<'_>) {
        for (key, _) in document.iter().filter(|(key, _)| !TABLES.contains(&&*key.name)) {
            let near = nearest(&key.name, TABLES.into_iter());
            reader.found.add(
                key.at,
                Code::UnknownKey,
                format!("`{}` is no known table; {near}", key.name.escape_debug()),
            );
        }
        let empty = Table::new();
        let [service, server, subsets, checks] =
            TABLES.map(|name| table(document, name, reader).unwrap_or(&empty));
        self.service = typed(service, "service", &schema::SERVICE, reader);
        self.server = typed(server, "server", &schema::SERVER, reader);
        self.check_server(server, reader);
        self.checks = checks::read(checks, reader);
        self.check_timeouts(checks, reader);
        self.subsets = subsets::read(subsets, reader);
        link(&self.subsets, subsets, checks, reader);
    }

    fn check_server(&self, server: &Table, reader: &mut Reader<'_>) {
        for (key, what) in self.server.mistakes() {
            let mut at = 0;
            let mut table = Some(server);
            for part in key.split('.') {
                let node = table.and_then(|table| get(table, part));
                at = node.map_or(at, |node| node.at);
                table = node.and_then(|node| node.datum.table());
            }
            reader.found.add(at, Code::BadValue, format!("`server.{key}`: {what}"));
        }
    }

    /// Tells of each check that was given more time than an answer of the server has.
    fn check_timeouts(&self, checks: &Table, reader: &mut Reader<'_>) {
        for check in self.checks.iter().filter(|check| check.common.timeout > self.server.timeout) {
            let name = &check.named.name;
            let table = get(checks, name).and_then(|node| node.datum.table());
            // Without it, it is the default that is longer: whoever wants quick answers has said so, and means all checks.
            let Some(node) = table.and_then(|table| get(table, "timeout")) else { continue };
            let what = format!(
                "`checks.{name}.timeout` is longer than `server.timeout`: `checker serve` cuts the check off there"
            );
            reader.found.add(node.at, Code::CutOff, what);
        }
    }

    /// The names of the subsets, in the order of the file.
    pub fn subsets(&self) -> impl Iterator<Item = &str> + Clone {
        self.subsets.iter().map(|subset| &*subset.name)
    }

    /// The checks of a subset with those of the subsets that it includes, in the order of its list. Each is there once, however
    /// often it is listed.
    ///
    /// An error says that there is no such subset, and which one may be meant.
    pub fn subset(&self, name: &str) -> Result<Vec<Arc<Named>>, String> {
        let names = subsets::flatten(&self.subsets, name).ok_or_else(|| {
            format!("there is no subset `{}`; {}", name.escape_debug(), nearest(name, self.subsets()))
        })?;
        let find = |name: &&str| self.checks.iter().find(|check| check.named.name == *name);
        Ok(names.iter().filter_map(find).map(|check| Arc::clone(&check.named)).collect())
    }

    /// Every secret that the configuration holds, and those that its checks take from the environment: for whoever writes a log, to
    /// leave them out.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.secrets.iter().map(Secret::expose)
    }
}

fn table<'d>(document: &'d Table, name: &str, reader: &mut Reader<'_>) -> Option<&'d Table> {
    let node = get(document, name)?;
    if !matches!(node.datum, Datum::Table(_)) {
        let what = format!("`{name}` must be a table, and is {}", node.datum.word());
        reader.found.add(node.at, Code::WrongType, what);
    }
    node.datum.table()
}

/// A table whose settings are the same for everyone. What is wrong in it is as if it were not there.
fn typed<T: serde::de::DeserializeOwned + Default>(
    table: &Table,
    name: &str,
    schema: &serde_json::Value,
    reader: &mut Reader<'_>,
) -> T {
    let partial = reader.table(table, 0, schema, name);
    serde_json::from_value(partial.value.into()).unwrap_or_default()
}

/// Holds the subsets and the checks against each other. A check or a subset that is wrong is there all the same.
fn link(subsets: &[Subset], subset_table: &Table, check_table: &Table, reader: &mut Reader<'_>) {
    let names = |table: &'_ Table| -> Vec<String> { table.iter().map(|(key, _)| key.name.clone()).collect() };
    let (subset_names, check_names) = (names(subset_table), names(check_table));
    let subset_names: Vec<_> = subset_names.iter().map(String::as_str).collect();
    let check_names: Vec<_> = check_names.iter().map(String::as_str).collect();
    subsets::link(subsets, &subset_names, &check_names, reader);
    let listed = subsets::listed(subsets);
    for (key, _) in check_table.iter().filter(|(key, _)| !listed.contains(&*key.name)) {
        let what = format!("the check `{}` is in no subset, so nobody ever asks it", key.name.escape_debug());
        reader.found.add(key.at, Code::UnusedCheck, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Contract;

    fn set(name: &str) -> Option<Result<String, ()>> {
        (name == "PASSWORD").then(|| Ok("S3cret".to_owned()))
    }

    fn parse(text: &str) -> Reading {
        Configuration::parse(text, Surroundings { variable: &set, folder: Path::new("/nonexistent") })
    }

    fn told(text: &str) -> Vec<String> {
        parse(text).problems.iter().map(ToString::to_string).collect()
    }

    fn right(text: &str) -> Configuration {
        let reading = parse(text);
        assert!(reading.problems.is_empty(), "{:?}", reading.problems);
        reading.configuration.unwrap()
    }

    const FILLINGS: [&str; 6] = ["word", "redis://h", "postgres://h/d", "amqp://h", "https://h", "smtp://h"];

    const TWO: &str = "[checks.a]\ntype = 'tcp'\naddress = 'h:1'\n[checks.b]\ntype = 'tcp'\naddress = 'h:2'\ntimeout = '250ms'\ncritical = false\nfall = 3\n";

    #[test]
    fn secrets_are_what_is_one_and_no_ordinary_words() {
        let command = |more: &str| format!("[subsets]\nall = ['it']\n[checks.it]\ntype = 'command'\n{more}");
        for (text, expected) in [
            (command("command = ['test', '-e', '/latest']\nenvironment = { WORD = 'ordinary' }"), &[][..]),
            (command("command = ['ask', 'me:${PASSWORD}', '${UNSET:-ordinary}']"), &["S3cret"]),
            (command("command = ['ask', 'https://me:S3cret@h']"), &["S3cret"]),
            (command("command = ['ask']\nenvironment = { A = '${PASSWORD}', B = 'x' }"), &["S3cret"]),
            (command("command = ['ask']\nenvironment = { api_token = 'S3cret' }"), &["S3cret"]),
            (command("command = ['ask']\nenvironment = { 'TOKEN.it' = 'S3cret' }"), &["S3cret"]),
        ] {
            assert_eq!(right(&text).secrets().collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[cfg(feature = "redis")]
    #[test]
    fn a_url_is_a_secret_where_it_holds_one() {
        let told = |url: &str| {
            let text = format!("[subsets]\nall = ['it']\n[checks.it]\ntype = 'redis'\nurl = '{url}'");
            right(&text).secrets().map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        assert!(told("redis://h/0").is_empty());
        assert_eq!(told("redis://:S3cret@h"), ["redis://:S3cret@h", "S3cret"]);
    }

    #[test]
    fn what_clients_take_from_the_environment_is_a_secret_too() {
        let set = |name: &str| (name == "PGPASSWORD").then(|| Ok("S3cret".to_owned()));
        let reading = Configuration::parse("", Surroundings { variable: &set, folder: Path::new("/") });
        assert_eq!(reading.configuration.unwrap().secrets().collect::<Vec<_>>(), ["S3cret"]);
    }

    #[test]
    fn an_empty_file_says_what_stands_there_by_default() {
        let configuration = right("");
        assert_eq!((configuration.service, configuration.server), (Service::default(), Server::default()));
        assert!(configuration.checks.is_empty());
    }

    #[test]
    fn what_is_set_is_what_is_read() {
        let text = format!(
            "[service]\nname = 'orders'\n[server]\nlisten = '[::1]:1'\ncache = '2s'\nfailure_status = 500\ndetail = 'safe'\n\
             [server.access]\nnetworks = ['10.0.0.0/8', '::1']\ntoken = '${{PASSWORD}}'\n[subsets]\nall = ['b', 'a']\n{TWO}"
        );
        let configuration = right(&text);
        assert_eq!(configuration.service.name.as_deref(), Some("orders"));
        let server = &configuration.server;
        assert_eq!(
            (server.listen.to_string(), server.failure_status, server.detail),
            ("[::1]:1".to_owned(), 500, Detail::Safe)
        );
        assert_eq!((server.access.networks.len(), server.access.token.expose()), (2, "S3cret"));
        let all = configuration.subset("all").unwrap();
        let told: Vec<_> =
            all.iter().map(|named| (&*named.name, named.timeout.as_millis(), named.critical)).collect();
        assert_eq!(told, [("b", 250, false), ("a", 5_000, true)]);
        assert_eq!(configuration.checks[1].common.fall.get(), 3);
        assert_eq!(configuration.secrets().collect::<Vec<_>>(), ["S3cret"]);
        assert!(!format!("{configuration:?}").contains("S3cret"));
    }

    #[test]
    fn a_check_that_two_includes_bring_is_there_once_where_it_came_first() {
        let text =
            format!("[subsets]\none = ['b', 'a']\ntwo = ['a']\nall = ['@two', '@one', 'b', '@one']\n{TWO}");
        let names = |subset: &str| -> Vec<_> {
            right(&text).subset(subset).unwrap().iter().map(|named| named.name.clone()).collect()
        };
        assert_eq!(names("all"), ["a", "b"]);
        assert_eq!(names("one"), ["b", "a"]);
        let error = right(&text).subset("onne").unwrap_err();
        assert_eq!(error, "there is no subset `onne`; did you mean `one`?");
    }

    #[test]
    fn a_circle_is_told_once_and_ends() {
        let text = format!("[subsets]\na = ['@b']\nb = ['@c', 'a', 'b']\nc = ['@a', '@c']\n{TWO}");
        assert_eq!(
            told(&text),
            [
                "4:6: C018: subsets include each other in a circle: `a` → `b` → `c` → `a`",
                "4:12: C018: subsets include each other in a circle: `c` → `c`",
            ]
        );
    }

    #[test]
    fn many_includes_deep_are_followed_without_a_stack() {
        let includes = (0..20_000).map(|number| format!("s{number} = ['@s{}']\n", number + 1));
        let mut text = format!("[subsets]\n{}", includes.collect::<String>());
        text.push_str("s20000 = ['a', 'b']\n");
        text.push_str(TWO);
        assert_eq!(right(&text).subset("s0").unwrap().len(), 2);
    }

    #[test]
    fn a_warning_leaves_the_configuration_usable() {
        let reading = parse(TWO);
        let told: Vec<_> = reading.problems.iter().map(ToString::to_string).collect();
        assert_eq!(told[0], "1:9: C021: warning: the check `a` is in no subset, so nobody ever asks it");
        assert!(told.len() == 2 && reading.configuration.is_some());
    }

    #[test]
    fn every_kinds_example_and_contract_are_configurations() {
        for kind in crate::checks::KINDS {
            let contract = match kind.contract {
                Contract::Peer(settings) | Contract::AnyAnswer(settings) => settings,
                Contract::Local => "",
            };
            for settings in [kind.example, &contract.replace("{peer}", "127.0.0.1:9")] {
                let text =
                    format!("[subsets]\nall = ['it']\n[checks.it]\ntype = '{}'\n{settings}\n", kind.name);
                // Whatever the variables of an example stand for: with one of these it is right.
                let readings = FILLINGS.map(|filling| {
                    let set = |_: &str| Some(Ok(filling.to_owned()));
                    let surroundings = Surroundings { variable: &set, folder: Path::new("/nonexistent") };
                    Configuration::parse(&text, surroundings).problems
                });
                let right = |problems: &Vec<Problem>| {
                    problems.iter().all(|problem| problem.code == Code::BadSecretFile)
                };
                assert!(settings.is_empty() || readings.iter().any(right), "{text}{readings:?}");
            }
        }
    }

    #[test]
    fn every_setting_is_documented_and_required_or_has_a_default() {
        for kind in crate::checks::KINDS {
            let schema = schema::own(kind);
            assert!(schema["description"].is_string(), "{} says nothing of itself", kind.name);
            assert_eq!(schema["additionalProperties"], false, "{}: #[serde(deny_unknown_fields)]", kind.name);
            for (key, setting) in schema["properties"].as_object().unwrap() {
                let name = format!("{}.{key}", kind.name);
                assert!(setting["description"].is_string(), "{name} has no documentation");
                assert!(schema::COMMON["properties"].get(key).is_none(), "{name} is a key of every check");
                let required =
                    schema["required"].as_array().is_some_and(|all| all.contains(&key.as_str().into()));
                let optional = setting["type"].as_array().is_some_and(|types| types.contains(&"null".into()))
                    || setting["anyOf"]
                        .as_array()
                        .is_some_and(|all| all.iter().any(|one| one["type"] == "null"));
                // A list or a table that is not there is an empty one.
                let empty = ["array", "object"].contains(&setting["type"].as_str().unwrap_or_default());
                let default = setting.get("default").is_some() || empty;
                assert!(
                    required || optional || default,
                    "{name} shows no default: its type is not `Serialize`"
                );
            }
        }
    }
}
