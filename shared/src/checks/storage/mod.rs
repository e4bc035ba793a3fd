//! Whether a store of objects (a folder, S3, Azure, Google Cloud) has an object, or takes, gives back and deletes one.
//!
//! How a store is reached stands in `place`. What was written is deleted whatever fails in between: time for it is kept back
//! from the question's, and what could not be deleted even so is deleted before the next one.

mod place;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutPayload};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::timeout_at;

use self::place::Place;
use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};
use crate::settings::{Secret, TlsFiles, Url};

/// How many objects are remembered at most that could not be deleted.
const MOST_LEFT: usize = 100;

/// The share of the time left that is kept back for deleting, and its most.
const KEPT_BACK: (u32, Duration) = (4, Duration::from_secs(2));

/// Whether a store of objects has an object, or takes, gives back and deletes one: a folder, S3 and what speaks like it,
/// Azure Blob Storage, Google Cloud Storage.
///
/// Where no credentials are given, they come from where the providers' own programs find them: `AWS_…`, `AZURE_…` and
/// `GOOGLE_…` in the environment, or the machine's own identity.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// `file:///FOLDER`, `s3://BUCKET`, `az://CONTAINER` or `gs://BUCKET`.
    url: Url,
    /// `exists` asks for the object `path`; `write` writes an object of its own, reads it back, compares and deletes it.
    #[serde(default)]
    mode: Mode,
    /// The object that `exists` asks for.
    path: Option<String>,
    /// Whether it passes too that there is no such object: then only access is asked for.
    #[serde(default)]
    allow_missing: bool,
    /// The folder that `write` writes into.
    #[serde(default = "prefix")]
    prefix: String,
    /// The server, where it is not the provider's own: `http://minio:9000`, or for Azure with the account in its path.
    endpoint: Option<Url>,
    /// The region of an S3 bucket. Default: `us-east-1`.
    region: Option<String>,
    /// The access key of S3, or the name of the Azure storage account.
    account: Option<String>,
    /// The secret that belongs to it.
    secret: Option<Secret>,
    /// A file with the key of a Google service account (JSON).
    service_account: Option<PathBuf>,
    /// The certificates to trust, and this side's own.
    #[serde(default)]
    tls: TlsFiles,
}

fn prefix() -> String {
    "checker".to_owned()
}

/// What is asked.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Whether an object is there.
    #[default]
    Exists,
    /// Whether objects can be written, read and deleted.
    Write,
}

impl Settings for Storage {
    const KIND: &'static str = "storage";
    const EXAMPLE: &'static str = r#"url = "s3://media"
mode = "write"
endpoint = "http://minio:9000"
account = "shop"
secret = "S3cret""#;
    const CONTRACT: Contract = Contract::Peer(
        r#"url = "s3://media"
mode = "write"
endpoint = "http://{peer}"
account = "shop"
secret = "S3cret""#,
    );
    const MORE_CONTRACTS: &'static [&'static str] = &[
        r#"url = "az://media"
mode = "write"
endpoint = "http://{peer}/shop"
account = "shop"
secret = "UzNjcmV0""#,
        r#"url = "s3://media"
path = "logo.svg"
endpoint = "https://{peer}"
account = "shop"
secret = "S3cret""#,
    ];
    type Check = Store;

    fn build(self) -> Result<Store, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut parsed = |key, text: &str| {
            let path = Path::parse(text.trim_matches('/'));
            path.map_err(|_| mistakes.push(Mistake::of(key, "no object can have this name")))
                .unwrap_or_default()
        };
        let question = match self.mode {
            Mode::Exists => {
                let path = parsed("path", self.path.as_deref().unwrap_or_default());
                Question::Exists { path, allow_missing: self.allow_missing }
            }
            Mode::Write => Question::Write { folder: parsed("prefix", &self.prefix) },
        };
        match (self.mode, &self.path) {
            (Mode::Exists, None) => {
                mistakes.push(Mistake::of("path", "`exists` needs the `path` of an object"));
            }
            (Mode::Write, Some(_)) => {
                mistakes.push(Mistake::of("path", "this is for `exists`; `write` has a `prefix`"));
            }
            _ => {}
        }
        if self.mode == Mode::Write && self.allow_missing {
            mistakes.push(Mistake::of("allow_missing", "this is for `exists`"));
        }
        let place = Place::new(
            &self.url,
            place::Access {
                endpoint: self.endpoint,
                region: self.region,
                account: self.account,
                secret: self.secret,
                service_account: self.service_account,
            },
            self.tls,
        );
        match place {
            Ok(place) if mistakes.is_empty() => Ok(Store { place, question, left: Left::default() }),
            place => Err(mistakes.into_iter().chain(place.err().unwrap_or_default()).collect()),
        }
    }
}

/// A store, and what it is asked.
#[derive(Debug)]
pub struct Store {
    place: Place,
    question: Question,
    left: Left,
}

#[derive(Debug)]
enum Question {
    Exists { path: Path, allow_missing: bool },
    Write { folder: Path },
}

#[async_trait::async_trait]
impl Check for Store {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let store = self.place.store(deadline).await?;
        match &self.question {
            Question::Exists { path, allow_missing } => match store.head(path).await {
                Err(Error::NotFound { .. }) if *allow_missing => Ok(()),
                Err(error @ Error::NotFound { .. }) => Err(failed("the object is not there", error)),
                other => other.map(|_| ()).map_err(|error| refused("the storage does not answer", error)),
            },
            Question::Write { folder } => self.write(&*store, folder, deadline).await,
        }
    }
}

impl Store {
    async fn write(&self, store: &dyn ObjectStore, folder: &Path, deadline: Instant) -> Result<(), Failure> {
        self.delete_left(store).await?;
        let (name, content) = unlike_any_other()?;
        let path = folder.clone().join(format!("probe-{name}.txt"));
        let written = self.left.add(path.clone());
        let asked = timeout_at(before(deadline).into(), put_and_get(store, &path, &content)).await;
        let deleted = store.delete(&path).await;
        if !matches!(&deleted, Err(error) if !matches!(error, Error::NotFound { .. })) {
            written.gone();
        }
        asked.map_err(|_| Failure::failed("timed out"))??;
        deleted.map_err(|error| refused("what was written could not be deleted", error))?;
        match store.head(&path).await {
            Err(Error::NotFound { .. }) => Ok(()),
            Ok(_) => Err(Failure::failed("what was deleted is still there")),
            Err(error) => Err(refused("the storage does not answer", error)),
        }
    }

    /// What an earlier question could not delete.
    async fn delete_left(&self, store: &dyn ObjectStore) -> Result<(), Failure> {
        for path in self.left.all() {
            match store.delete(&path).await {
                Ok(()) | Err(Error::NotFound { .. }) => self.left.remove(&path),
                Err(error) => return Err(refused("what was written could not be deleted", error)),
            }
        }
        Ok(())
    }
}

async fn put_and_get(store: &dyn ObjectStore, path: &Path, content: &str) -> Result<(), Failure> {
    let payload = PutPayload::from(content.to_owned());
    store.put(path, payload).await.map_err(|error| refused("nothing can be written", error))?;
    let unreadable = |error| refused("what was written could not be read back", error);
    let found = store.get(path).await.map_err(unreadable)?;
    if found.meta.size != content.len() as u64 || found.bytes().await.map_err(unreadable)? != content {
        return Err(Failure::failed("what was read back is not what was written"));
    }
    Ok(())
}

/// When the work must be done, so that there is time to delete what it left.
fn before(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline.checked_sub((left / KEPT_BACK.0).min(KEPT_BACK.1)).unwrap_or(deadline)
}

/// A name and a content that nobody wrote before.
fn unlike_any_other() -> Result<(String, String), Failure> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::unknown("there is no randomness to be had").because(error.to_string()))?;
    let name = random.iter().fold(String::new(), |name, byte| format!("{name}{byte:02x}"));
    let content = format!("written by a health check, and to be deleted: {name}\n");
    Ok((name, content))
}

fn refused(reason: &'static str, error: Error) -> Failure {
    match &error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => failed("access is denied", error),
        Error::NotFound { .. } => failed("there is no such place in the storage", error),
        _ if place::is_of_tls(&error) => failed("no encrypted connection can be made", error),
        _ => failed(reason, error),
    }
}

/// The kind of the failure without what the server said, which may be long and mean harm.
fn failed(reason: &'static str, error: Error) -> Failure {
    let kind = match error {
        Error::NotFound { .. } => "not found".to_owned(),
        Error::PermissionDenied { .. } => "permission denied".to_owned(),
        Error::Unauthenticated { .. } => "the credentials are not accepted".to_owned(),
        other => place::cause(&other),
    };
    Failure::failed(reason).because(kind)
}

/// Objects that were perhaps written, and not yet deleted: they stay here when a question is dropped in the middle.
#[derive(Clone, Debug, Default)]
struct Left(Arc<Mutex<Vec<Path>>>);

impl Left {
    fn add(&self, path: Path) -> Written<'_> {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if paths.len() < MOST_LEFT {
            paths.push(path.clone());
        }
        Written { left: self, path }
    }

    fn all(&self) -> Vec<Path> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remove(&self, path: &Path) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| known != path);
    }
}

/// One of them.
struct Written<'a> {
    left: &'a Left,
    path: Path,
}

impl Written<'_> {
    fn gone(self) {
        self.left.remove(&self.path);
    }
}
