//! Where objects are stored, and how the place is reached: by this project's own TLS, without proxies or retries, and with a
//! bound on what a server may answer.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http_body_util::{BodyExt as _, Limited};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::{ClientOptions, Error, ObjectStore, RetryConfig};
use rustls::ClientConfig;
use serde_json::Value;

use crate::check::Failure;
use crate::hidden::{Hidden, hide};
use crate::kind::Mistake;
use crate::node::solo::{Solo, Unanswered};
use crate::settings::{Secret, TlsFiles, Url};
use crate::tls::{self, Tls};

/// What no answer is longer than: what is asked for is short.
const LONGEST_ANSWER: usize = 1 << 20;

/// How it is reached: what belongs to one provider and is given for another is a mistake.
#[derive(Debug)]
pub struct Access {
    pub endpoint: Option<Url>,
    pub region: Option<String>,
    pub account: Option<String>,
    pub secret: Option<Secret>,
    pub service_account: Option<PathBuf>,
}

/// A place where objects are stored.
#[derive(Debug)]
pub struct Place {
    provider: Provider,
    /// The bucket, or the folder.
    name: String,
    access: Access,
    tls: Tls,
    made: Mutex<Option<Made>>,
    /// Where a folder is looked up, whose file system may never answer.
    solo: Solo,
}

/// A store, and what it was made with.
#[derive(Debug)]
struct Made {
    store: Arc<dyn ObjectStore>,
    tls: Arc<ClientConfig>,
    credentials: Option<String>,
    /// What no log may show as long as there is the store.
    _hidden: Hidden,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provider {
    Folder,
    Amazon,
    Azure,
    Google,
}

impl Place {
    pub fn new(url: &Url, access: Access, tls: TlsFiles) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Tls::mistakes(&tls);
        let provider = provider(url);
        match provider {
            Ok(provider) => mistakes.extend(access.mistakes(provider)),
            Err(ref mistake) => mistakes.push(mistake.clone()),
        }
        match provider {
            Ok(provider) if mistakes.is_empty() => {
                let name = match provider {
                    Provider::Folder => {
                        url.expose().to_file_path().unwrap_or_default().to_string_lossy().into_owned()
                    }
                    _ => url.expose().host_str().unwrap_or_default().to_owned(),
                };
                Ok(Self {
                    provider,
                    name,
                    access,
                    tls: Tls::new(tls),
                    made: Mutex::new(None),
                    solo: Solo::default(),
                })
            }
            _ => Err(mistakes),
        }
    }

    /// The same one, with its connections, until a file of certificates or of credentials changes.
    pub async fn store(&self, deadline: Instant) -> Result<Arc<dyn ObjectStore>, Failure> {
        if self.provider == Provider::Folder {
            return self.folder(deadline).await;
        }
        let (tls, credentials) = (self.tls.config()?, self.credentials()?);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*made
            && Arc::ptr_eq(&made.tls, &tls)
            && made.credentials == credentials
        {
            return Ok(Arc::clone(&made.store));
        }
        let hidden = hide(self.secrets(credentials.as_deref()).iter().map(String::as_str));
        let key = self.access.service_account.is_some().then(|| credentials.clone()).flatten();
        let store = self.remote(&tls, key).map_err(|error| {
            Failure::unknown("the storage's settings cannot be used").because(cause(&error))
        })?;
        *made = Some(Made { store: Arc::clone(&store), tls, credentials, _hidden: hidden });
        Ok(store)
    }

    /// What the file of Google's credentials holds: the one of the settings, else the one that the environment names. Others have
    /// none.
    fn credentials(&self) -> Result<Option<String>, Failure> {
        if let Some(path) = &self.access.service_account {
            return text("service_account", path).map(Some);
        }
        if self.provider != Provider::Google {
            return Ok(None);
        }
        let environment = GoogleCloudStorageBuilder::from_env();
        let named = [
            (GoogleConfigKey::ServiceAccount, "GOOGLE_SERVICE_ACCOUNT"),
            (GoogleConfigKey::ApplicationCredentials, "GOOGLE_APPLICATION_CREDENTIALS"),
        ];
        let mut named =
            named.into_iter().filter_map(|(key, name)| Some((name, environment.get_config_value(&key)?)));
        named.next().map(|(name, path)| text(name, Path::new(&path))).transpose()
    }

    /// What is secret of the credentials, and of what the environment gives in their place.
    fn secrets(&self, credentials: Option<&str>) -> Vec<String> {
        let account: Value = credentials.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let parts = ["private_key", "refresh_token", "client_secret"]
            .map(|part| account[part].as_str().map(str::to_owned));
        let environment = match self.provider {
            Provider::Folder => vec![],
            Provider::Amazon => {
                let environment = AmazonS3Builder::from_env();
                let keys = [AmazonS3ConfigKey::SecretAccessKey, AmazonS3ConfigKey::Token];
                keys.map(|key| environment.get_config_value(&key)).to_vec()
            }
            Provider::Azure => {
                let environment = MicrosoftAzureBuilder::from_env();
                let keys = [
                    AzureConfigKey::AccessKey,
                    AzureConfigKey::ClientSecret,
                    AzureConfigKey::SasKey,
                    AzureConfigKey::Token,
                ];
                keys.map(|key| environment.get_config_value(&key)).to_vec()
            }
            Provider::Google => {
                let environment = GoogleCloudStorageBuilder::from_env();
                let keys = [GoogleConfigKey::ServiceAccountKey, GoogleConfigKey::BearerToken];
                keys.map(|key| environment.get_config_value(&key)).to_vec()
            }
        };
        parts.into_iter().chain(environment).chain([credentials.map(str::to_owned)]).flatten().collect()
    }

    /// Looked up anew for each question: a mount comes and goes. While one look-up hangs, nothing else is asked of its file
    /// system, so no more threads than that one are lost to it.
    async fn folder(&self, deadline: Instant) -> Result<Arc<dyn ObjectStore>, Failure> {
        let name = self.name.clone();
        match self.solo.ask(deadline, move || LocalFileSystem::new_with_prefix(name)).await {
            Ok(Ok(folder)) => Ok(Arc::new(folder.with_automatic_cleanup(true))),
            Ok(Err(error)) => Err(Failure::failed("the folder is not there").because(error)),
            Err(Unanswered::Late) => Err(Failure::failed("the folder does not answer")),
            Err(Unanswered::Still) => {
                Err(Failure::failed("the folder has not answered an earlier question yet"))
            }
            Err(Unanswered::Broken(error)) => {
                Err(Failure::unknown("the folder could not be asked").because(error))
            }
        }
    }

    fn remote(&self, tls: &Arc<ClientConfig>, key: Option<String>) -> Result<Arc<dyn ObjectStore>, Error> {
        match self.provider {
            Provider::Amazon => self.amazon(Connector(Arc::clone(tls))),
            Provider::Azure => self.azure(Connector(Arc::clone(tls))),
            Provider::Folder | Provider::Google => self.google(key, Connector(Arc::clone(tls))),
        }
    }

    fn amazon(&self, connector: Connector) -> Result<Arc<dyn ObjectStore>, Error> {
        let access = &self.access;
        let mut builder = match (&access.account, &access.secret) {
            (Some(account), Some(secret)) => {
                AmazonS3Builder::new().with_access_key_id(account).with_secret_access_key(secret.expose())
            }
            _ => AmazonS3Builder::from_env(),
        };
        builder = builder.with_bucket_name(&self.name).with_retry(once()).with_http_connector(connector);
        if let Some(region) = &access.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &access.endpoint {
            builder = builder.with_endpoint(endpoint.expose().as_str().trim_end_matches('/'));
            builder = builder.with_allow_http(access.plain());
        }
        Ok(Arc::new(builder.build()?))
    }

    fn azure(&self, connector: Connector) -> Result<Arc<dyn ObjectStore>, Error> {
        let access = &self.access;
        let mut builder = match (&access.account, &access.secret) {
            (Some(account), Some(secret)) => {
                MicrosoftAzureBuilder::new().with_account(account).with_access_key(secret.expose())
            }
            _ => MicrosoftAzureBuilder::from_env(),
        };
        builder = builder.with_container_name(&self.name).with_retry(once()).with_http_connector(connector);
        if let Some(endpoint) = &access.endpoint {
            builder = builder.with_endpoint(endpoint.expose().as_str().trim_end_matches('/').to_owned());
            builder = builder.with_allow_http(access.plain());
        }
        Ok(Arc::new(builder.build()?))
    }

    fn google(&self, key: Option<String>, connector: Connector) -> Result<Arc<dyn ObjectStore>, Error> {
        let access = &self.access;
        let mut builder = match key {
            Some(key) => GoogleCloudStorageBuilder::new().with_service_account_key(key),
            None => GoogleCloudStorageBuilder::from_env(),
        };
        builder = builder.with_bucket_name(&self.name).with_retry(once()).with_http_connector(connector);
        if let Some(endpoint) = &access.endpoint {
            builder = builder.with_base_url(endpoint.expose().as_str().trim_end_matches('/'));
            builder = builder.with_client_options(ClientOptions::new().with_allow_http(access.plain()));
        }
        Ok(Arc::new(builder.build()?))
    }
}

/// What a file of credentials holds.
fn text(setting: &str, path: &Path) -> Result<String, Failure> {
    let contents = tls::contents(setting, path)?;
    String::from_utf8(contents).map_err(|_| {
        Failure::unknown(format!("the file of `{setting}` cannot be used"))
            .because(format!("{}: not text", path.display()))
    })
}

fn provider(url: &Url) -> Result<Provider, Mistake> {
    let url = url.expose();
    let bucket = url.host_str().is_some_and(|host| !host.is_empty());
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.username().is_empty();
    match url.scheme() {
        "file" if url.to_file_path().is_ok() => Ok(Provider::Folder),
        "s3" if bucket && bare => Ok(Provider::Amazon),
        "az" if bucket && bare => Ok(Provider::Azure),
        "gs" if bucket && bare => Ok(Provider::Google),
        _ => {
            Err(Mistake::of("url", "a storage is file:///FOLDER, s3://BUCKET, az://CONTAINER or gs://BUCKET"))
        }
    }
}

impl Access {
    fn mistakes(&self, provider: Provider) -> Vec<Mistake> {
        let keyed = matches!(provider, Provider::Amazon | Provider::Azure);
        let mut mistakes = Vec::new();
        let mut only = |key, given: bool, fits: bool, whose| {
            if given && !fits {
                mistakes.push(Mistake::of(key, format!("this is for {whose}")));
            }
        };
        only("endpoint", self.endpoint.is_some(), provider != Provider::Folder, "s3, az and gs");
        only("region", self.region.is_some(), provider == Provider::Amazon, "s3");
        only("account", self.account.is_some(), keyed, "s3 and az");
        only("secret", self.secret.is_some(), keyed, "s3 and az");
        only("service_account", self.service_account.is_some(), provider == Provider::Google, "gs");
        match (&self.account, &self.secret) {
            (Some(_), None) => mistakes.push(Mistake::of("secret", "an `account` needs its `secret`")),
            (None, Some(_)) => mistakes.push(Mistake::of("account", "a `secret` needs its `account`")),
            _ => {}
        }
        if self.endpoint.as_ref().is_some_and(|url| !matches!(url.expose().scheme(), "http" | "https")) {
            mistakes.push(Mistake::of("endpoint", "an endpoint is http://HOST or https://HOST"));
        }
        mistakes
    }

    fn plain(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|url| url.expose().scheme() == "http")
    }
}

/// Whoever asks, asks again by itself.
fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// Whether TLS found what went wrong.
pub fn is_of_tls(error: &Error) -> bool {
    std::iter::successors(error.source(), |&error| error.source()).any(tls::is_of_tls)
}

/// What went wrong at the bottom of it, of which servers and settings have no say.
pub fn cause(error: &Error) -> String {
    let mut deepest: Option<String> = None;
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            deepest = Some(error.to_string());
        } else if let Some(error) = error.downcast_ref::<rustls::Error>() {
            deepest = Some(error.to_string());
        } else if let Some(error) = error.downcast_ref::<HttpError>() {
            deepest.get_or_insert_with(|| format!("HTTP: {:?}", error.kind()));
        }
        source = error.source();
    }
    deepest.unwrap_or_else(|| "not an answer that a storage gives".to_owned())
}

/// Connects for a store.
#[derive(Debug)]
struct Connector(Arc<ClientConfig>);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured((*self.0).clone())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::Generic { store: "HTTP", source: Box::new(error) })?;
        Ok(HttpClient::new(Bounded(client)))
    }
}

/// Lets no server send more than it was asked for.
#[derive(Debug)]
struct Bounded(reqwest::Client);

#[async_trait::async_trait]
impl HttpService for Bounded {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = self.0.call(request).await?.into_parts();
        let too_long = |error| HttpError::new_boxed(HttpErrorKind::Decode, error);
        let body = HttpResponseBody::new(Limited::new(body, LONGEST_ANSWER).map_err(too_long));
        Ok(HttpResponse::from_parts(parts, body))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_service_account_that_cannot_be_used_is_told_and_nothing_of_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("account.json");
        let url = url::Url::parse("gs://media").unwrap().into();
        let service_account = Some(file.clone());
        let access = Access { endpoint: None, region: None, account: None, secret: None, service_account };
        let place = Place::new(&url, access, TlsFiles::default()).unwrap();
        let soon = || Instant::now() + Duration::from_secs(20);
        let missing = place.store(soon()).await.unwrap_err();
        assert_eq!(missing.reason(), "the file of `service_account` cannot be used");
        for text in
            ["S3cret", r#"{"private_key":"S3cret"}"#, r#"{"type":"service_account","private_key":"S3cret"}"#]
        {
            std::fs::write(&file, text).unwrap();
            let unusable = place.store(soon()).await.unwrap_err();
            assert_eq!(unusable.reason(), "the storage's settings cannot be used");
            assert!(!format!("{:?}", unusable.source()).contains("S3cret"), "{unusable}");
        }
    }

    /// In place of a mount whose server is gone, which takes root: a look-up that does not come back.
    #[tokio::test]
    async fn of_a_folder_that_hangs_nothing_more_is_asked_until_it_answers() {
        let folder = tempfile::tempdir().unwrap();
        let url = url::Url::from_file_path(folder.path()).unwrap().into();
        let access =
            Access { endpoint: None, region: None, account: None, secret: None, service_account: None };
        let place = Place::new(&url, access, TlsFiles::default()).unwrap();
        let within = |millis| Instant::now() + Duration::from_millis(millis);
        let (let_go, hung) = mpsc::channel::<()>();
        let asked = place.solo.ask(within(20), move || hung.recv());
        assert!(matches!(asked.await, Err(Unanswered::Late)));
        for _ in 0..10 {
            let failure = place.store(within(20_000)).await.unwrap_err();
            assert_eq!(failure.reason(), "the folder has not answered an earlier question yet");
        }
        let_go.send(()).unwrap();
        let deadline = within(20_000);
        while place.store(deadline).await.is_err() {
            assert!(Instant::now() < deadline);
            tokio::task::yield_now().await;
        }
    }
}
