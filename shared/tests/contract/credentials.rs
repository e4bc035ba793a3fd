//! Who may ask: each kind that takes a password, a token or a key is asked with the right and with wrong ones, of real servers that
//! know the difference; or it is written here why it is not.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use shared::Status;
use shared::config::schema;
use shared::kind::Kind;
use shared::runner::ask;
use shared::settings::{SHAPE, Shape};

#[cfg(feature = "kafka")]
use super::servers::KafkaPeer;
#[cfg(feature = "rabbitmq")]
use super::servers::RabbitMq;
#[cfg(feature = "storage")]
use super::servers::SigningS3;
use super::servers::{Nginx, Postgres, Redis, Smtp};
use super::{check, runtime};

/// What stands in settings where the secret goes.
const SECRET: &str = "SECRET";

/// What the servers know.
const RIGHT: &str = "S3cret";

/// What they do not: another word, and one that begins with the right one.
const WRONG: [&str; 2] = ["Wr0ngZq9xKv", "S3cretQj7wYp"];

/// So long may an answer take where the machine is busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How a kind's secrets are known to be right.
enum Known {
    /// By real servers.
    Asked(fn(&Servers) -> Vec<Login>),
    /// By nobody here, and why.
    Unasked(&'static str),
}

/// One way to log in.
struct Login {
    /// In TOML, with `SECRET`.
    settings: String,
    right: String,
    /// The public reason where it is wrong.
    refused: &'static str,
}

use Known::{Asked, Unasked};

/// Every kind that takes a secret, by name.
const KINDS_WITH_SECRETS: &[(&str, Known)] = &[
    ("cache", Asked(|servers| vec![login(format!("url = '{}'", servers.redis(SECRET)), DENIED_BY_REDIS)])),
    (
        "celery",
        Asked(|servers| {
            let (known, redis) = (servers.redis(RIGHT), servers.redis(SECRET));
            vec![
                login(format!("min = 0\nbroker = '{redis}'"), "Redis denied access"),
                login(
                    format!("min = 0\nbroker = '{known}'\nresult_backend = '{redis}'"),
                    "the result backend: Redis denied access",
                ),
                #[cfg(feature = "rabbitmq")]
                with(
                    format!("min = 0\nbroker = '{}'", servers.rabbit("guest")),
                    "guest".to_owned(),
                    "the broker denied access",
                ),
            ]
        }),
    ),
    (
        "cluster",
        Asked(|servers| {
            vec![login(
                format!("min = 0\ncluster = 'orders'\nredis = '{}'", servers.redis(SECRET)),
                "Redis denied access",
            )]
        }),
    ),
    (
        "command",
        Unasked("its words and variables are another program's, and mean what that program makes of them"),
    ),
    ("database", Asked(|servers| vec![login(servers.postgres().0, "access is denied")])),
    (
        "django-q",
        Asked(|servers| {
            let redis = servers.redis(SECRET);
            vec![login(
                format!("min = 0\ncluster = 'shop'\nsecret_key = 'k'\nredis = '{redis}'"),
                "Redis denied access",
            )]
        }),
    ),
    (
        "feed",
        Unasked("it is asked in the background, by the client of `http`, of pages that are for everyone"),
    ),
    (
        "http",
        Asked(|servers| {
            let nginx = servers.nginx.get_or_init(Nginx::start);
            let basic = nginx.url("/basic").replace("://", &format!("://user:{SECRET}@"));
            vec![
                login(format!("url = '{basic}'"), "the status is 401"),
                login(format!("url = '{}'\ntoken = '{SECRET}'", nginx.url("/bearer")), "the status is 401"),
                login(
                    format!("url = '{}'\nheaders = {{ x-key = '{SECRET}' }}", nginx.url("/key")),
                    "the status is 403",
                ),
            ]
        }),
    ),
    #[cfg(feature = "kafka")]
    (
        "kafka",
        Asked(|servers| {
            let logins = ["PLAIN", "SCRAM-SHA-256"].into_iter().zip(&servers.kafka);
            logins.map(|(mechanism, peer)| kafka(mechanism, peer)).collect()
        }),
    ),
    (
        "mail",
        Asked(|servers| {
            let smtp = servers.smtp.get_or_init(|| Smtp::start("plain"));
            let url = format!("smtp://shop:{SECRET}@127.0.0.1:{}", smtp.port);
            vec![login(format!("url = '{url}'\nencryption = 'none'"), "the login was not accepted")]
        }),
    ),
    (
        "migrations",
        Asked(|servers| {
            let (url, migrations) = servers.postgres();
            vec![login(format!("{url}\n{migrations}"), "access is denied")]
        }),
    ),
    #[cfg(feature = "rabbitmq")]
    (
        "rabbitmq",
        Asked(|servers| {
            vec![with(
                format!("url = '{}'\nalarms = false", servers.rabbit("probe")),
                "S3cret%2F".to_owned(),
                "the user or the password is refused",
            )]
        }),
    ),
    ("redis", Asked(|servers| vec![login(format!("url = '{}'", servers.redis(SECRET)), DENIED_BY_REDIS)])),
    (
        "statuspage",
        Unasked("it is asked in the background, by the client of `http`, of pages that are for everyone"),
    ),
    #[cfg(feature = "storage")]
    (
        "storage",
        Asked(|servers| {
            let s3 = servers.s3.get_or_init(SigningS3::start);
            let (account, secret) = s3.user("shop");
            let settings = format!(
                "url = 's3://media'\nmode = 'write'\nendpoint = 'http://127.0.0.1:{}'\naccount = '{account}'\nsecret = '{SECRET}'",
                s3.port
            );
            vec![with(settings, secret, "access is denied")]
        }),
    ),
];

const DENIED_BY_REDIS: &str = "Redis does not accept the user or password";

fn login(settings: String, refused: &'static str) -> Login {
    with(settings, RIGHT.to_owned(), refused)
}

fn with(settings: String, right: String, refused: &'static str) -> Login {
    Login { settings, right, refused }
}

#[cfg(feature = "kafka")]
fn kafka(mechanism: &'static str, peer: &OnceLock<KafkaPeer>) -> Login {
    let address = peer.get_or_init(|| KafkaPeer::start(Some(mechanism), None)).address;
    let sasl = format!("{{ mechanism = '{mechanism}', user = 'sh,op=', password = '{SECRET}' }}");
    let settings = format!("bootstrap_servers = ['{address}']\nsasl = {sasl}");
    with(settings, "S3cret/ü".to_owned(), "the user or the password is refused")
}

/// Real servers, each started when it is first asked for, and all ended with this.
#[derive(Default)]
pub struct Servers {
    redis: OnceLock<Redis>,
    postgres: OnceLock<Postgres>,
    nginx: OnceLock<Nginx>,
    smtp: OnceLock<Smtp>,
    #[cfg(feature = "kafka")]
    kafka: [OnceLock<KafkaPeer>; 2],
    #[cfg(feature = "rabbitmq")]
    rabbit: OnceLock<RabbitMq>,
    #[cfg(feature = "storage")]
    s3: OnceLock<SigningS3>,
}

impl Servers {
    /// The URL of who has this password.
    fn redis(&self, password: &str) -> String {
        let redis = self.redis.get_or_init(|| {
            let redis = Redis::start(&[]);
            redis.ask(&format!("ACL SETUSER probe on >{RIGHT} ~* &* +@all"));
            redis
        });
        redis.url_of(&format!("probe:{password}@"))
    }

    /// Settings of a database that has a table of migrations, and of what they are.
    fn postgres(&self) -> (String, String) {
        let postgres = self.postgres.get_or_init(|| {
            let postgres = Postgres::start(&[]);
            postgres.sql("CREATE TABLE _sqlx_migrations (version BIGINT, success BOOLEAN, checksum BYTEA)");
            postgres.sql(r"INSERT INTO _sqlx_migrations VALUES (1, true, '\x00')");
            postgres.sql("GRANT SELECT ON _sqlx_migrations TO probe");
            std::fs::write(postgres.program.folder.path().join("list"), "1\n").unwrap();
            postgres
        });
        let list = postgres.program.folder.path().join("list");
        let url = format!("url = '{}'", postgres.url().replace(RIGHT, SECRET));
        (url, format!("tool = 'sqlx'\nexpected = '{}'", list.display()))
    }

    #[cfg(feature = "rabbitmq")]
    fn rabbit(&self, user: &str) -> String {
        self.rabbit.get_or_init(RabbitMq::start).url(&format!("{user}:{SECRET}"), "shop")
    }
}

/// Whether a kind takes what may be a secret, anywhere in its settings.
fn takes_secrets(kind: &Kind) -> bool {
    fn is_in(schema: &Value) -> bool {
        let secrets = [Shape::Secret, Shape::Url].map(Shape::as_str);
        match schema {
            Value::Object(parts) => {
                let shape = parts.get(SHAPE).and_then(Value::as_str);
                shape.is_some_and(|shape| secrets.contains(&shape)) || parts.values().any(is_in)
            }
            Value::Array(parts) => parts.iter().any(is_in),
            _ => false,
        }
    }
    is_in(&schema::check(kind))
}

/// Says what is wrong with a kind's place among those that take secrets, or with how it takes a wrong one.
pub fn keeps(kind: &'static Kind, servers: &Servers) -> Result<(), String> {
    let known = KINDS_WITH_SECRETS.iter().find(|(name, _)| *name == kind.name);
    match (takes_secrets(kind), known) {
        (false, None) => Ok(()),
        (true, Some((_, Unasked(why)))) if !why.is_empty() => Ok(()),
        (false, Some(_)) => Err(format!("{} takes no secret, and is listed as if it did", kind.name)),
        (true, None | Some((_, Unasked(_)))) => {
            Err(format!("who is let in by `{}`? List a server that knows, or why there is none", kind.name))
        }
        (true, Some((_, Asked(logins)))) => {
            logins(servers).iter().try_for_each(|login| login.tells_right_from_wrong(kind))
        }
    }
}

/// The settings of a kind for each of the servers that let it in.
pub fn right(kind: &Kind, servers: &Servers) -> Vec<String> {
    match KINDS_WITH_SECRETS.iter().find(|(name, _)| *name == kind.name) {
        Some((_, Asked(logins))) => {
            logins(servers).iter().map(|login| login.settings.replace(SECRET, &login.right)).collect()
        }
        _ => Vec::new(),
    }
}

impl Login {
    fn tells_right_from_wrong(&self, kind: &'static Kind) -> Result<(), String> {
        let told = |secret: &str| {
            let settings = self.settings.replace(SECRET, secret);
            let named = check(kind, &settings, ([127, 0, 0, 1], 0).into());
            let outcome = runtime().block_on(ask(&named, Instant::now() + PATIENCE));
            (format!("{} with {settings}: {outcome:?}", kind.name), outcome)
        };
        let (words, outcome) = told(&self.right);
        if outcome.status != Status::Pass {
            return Err(format!("the right secret is refused: {words}"));
        }
        for wrong in WRONG {
            let (words, outcome) = told(wrong);
            if outcome.status == Status::Pass {
                return Err(format!("a wrong secret is accepted: {words}"));
            }
            if outcome.reason.as_deref() != Some(self.refused) {
                return Err(format!("not {:?} is told: {words}", self.refused));
            }
            // All that any format and the log show of it.
            let shown = format!("{outcome:?}");
            if let Some(part) = parts(wrong).chain(parts(&self.right)).find(|part| shown.contains(part)) {
                return Err(format!("a part of a secret is told, {part}: {words}"));
            }
        }
        Ok(())
    }
}

/// All parts of a secret that are no part of a word.
fn parts(secret: &str) -> impl Iterator<Item = &str> {
    let parts = secret.char_indices().filter_map(|(at, _)| secret.get(at..at + 4));
    parts.filter(|part| part.chars().any(|one| !one.is_ascii_lowercase()))
}
