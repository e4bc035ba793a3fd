//! The kind `storage`, of a folder and of real servers.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod servers;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use servers::{Azurite, Certificate, GoogleStorage, S3, SigningS3, ask, ask_briefly, ask_within, check};
use shared::hidden::without_secrets;

fn s3(server: &S3, more: &Value) -> Value {
    let mut settings = json!({
        "url": "s3://media",
        "endpoint": format!("http://127.0.0.1:{}", server.port),
        "account": "S3RVER",
        "secret": "S3RVER",
    });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

fn folder(folder: &Path, more: &Value) -> Value {
    let mut settings = json!({ "url": format!("file://{}", folder.display()) });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

#[tokio::test]
async fn a_folder_has_an_object_or_has_not() {
    let place = tempfile::tempdir().unwrap();
    let strict = check("storage", folder(place.path(), &json!({ "path": "a/b.txt" })));
    let lenient =
        check("storage", folder(place.path(), &json!({ "path": "a/b.txt", "allow_missing": true })));
    assert_eq!(ask(&*strict).await, Err("the object is not there: not found".to_owned()));
    assert_eq!(ask(&*lenient).await, Ok(()));
    std::fs::create_dir(place.path().join("a")).unwrap();
    std::fs::write(place.path().join("a/b.txt"), "b").unwrap();
    assert_eq!(ask(&*strict).await, Ok(()));
    drop(place);
    let told = ask(&*lenient).await.unwrap_err();
    assert!(told.starts_with("the folder is not there: "), "{told}");
}

#[tokio::test]
async fn what_is_written_to_a_folder_leaves_not_even_a_folder() {
    let place = tempfile::tempdir().unwrap();
    let write = check("storage", folder(place.path(), &json!({ "mode": "write", "prefix": "a/b" })));
    assert_eq!(ask(&*write).await, Ok(()));
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    // A file where the folder should be: nothing can be written, even by root.
    std::fs::write(place.path().join("a"), "in the way").unwrap();
    let told = ask(&*write).await.unwrap_err();
    assert!(told.starts_with("nothing can be written: "), "{told}");
    std::fs::remove_file(place.path().join("a")).unwrap();
    assert_eq!(ask(&*write).await, Ok(()));
}

#[tokio::test]
async fn s3_takes_gives_back_and_deletes_an_object_and_nothing_is_left() {
    let server = S3::start();
    let write = check("storage", s3(&server, &json!({ "mode": "write" })));
    assert_eq!(ask(&*write).await, Ok(()));
    assert!(server.files().is_empty());
    let exists = check("storage", s3(&server, &json!({ "path": "logo.svg" })));
    assert_eq!(ask(&*exists).await, Err("the object is not there: not found".to_owned()));
    let lenient = check("storage", s3(&server, &json!({ "path": "logo.svg", "allow_missing": true })));
    assert_eq!(ask(&*lenient).await, Ok(()));
}

#[tokio::test]
async fn an_unknown_account_is_told_as_such() {
    let server = S3::start();
    let settings = s3(&server, &json!({ "mode": "write", "account": "nobody" }));
    let told = ask(&*check("storage", settings)).await.unwrap_err();
    assert!(told.starts_with("access is denied: "), "{told}");
}

#[tokio::test]
async fn a_storage_is_believed_by_its_authority_and_name() {
    type Settings<'a> = &'a dyn Fn(&str, Value) -> Value;
    let (tls, other) = (Certificate::new(), Certificate::new());
    let (amazon, azure) = (S3::start_with_tls(&tls), Azurite::start_with_tls(&tls));
    let s3 = |host: &str, more: Value| {
        let mut settings = s3(&amazon, &json!({ "mode": "write", "tls": more }));
        settings["endpoint"] = format!("https://{host}:{}", amazon.port).into();
        settings
    };
    let az = |host: &str, more: Value| {
        json!({
            "url": "az://media",
            "path": "logo.svg",
            "allow_missing": true,
            "endpoint": format!("https://{host}:{}/{}", azure.port, Azurite::ACCOUNT),
            "account": Azurite::ACCOUNT,
            "secret": Azurite::KEY,
            "tls": more,
        })
    };
    for settings in [&s3 as Settings, &az] {
        assert_eq!(ask(&*check("storage", settings("localhost", json!({ "ca": tls.ca() })))).await, Ok(()));
        for (host, tls) in [
            ("localhost", json!({ "ca": other.ca() })),
            ("localhost", json!({})),
            ("127.0.0.1", json!({ "ca": tls.ca() })),
        ] {
            let check = check("storage", settings(host, tls.clone()));
            // The second time there is something that may have been written.
            for _ in 0..2 {
                let told = ask(&*check).await.unwrap_err();
                let reason = "no encrypted connection can be made: invalid peer certificate: ";
                assert!(told.starts_with(reason), "{host} {tls}: {told}");
            }
        }
    }
    // Without TLS, where there is TLS.
    let plain = check("storage", self::s3(&amazon, &json!({ "mode": "write" })));
    let told = ask_within(&*plain, Duration::from_secs(5)).await.unwrap_err();
    assert!(told.starts_with("nothing can be written: "), "{told}");
}

#[tokio::test]
async fn a_certificate_of_this_side_is_shown_to_who_asks_for_one() {
    let tls = Certificate::new();
    let server = GoogleStorage::start_for_the_certified(&tls);
    let asked = |certificates: Value| {
        let settings = json!({
            "url": "gs://media",
            "mode": "write",
            "endpoint": format!("https://localhost:{}", server.port),
            "service_account": server.account(true),
            "tls": certificates,
        });
        check("storage", settings)
    };
    assert_eq!(ask(&*asked(json!({ "ca": tls.ca(), "cert": tls.ca(), "key": tls.key() }))).await, Ok(()));
    ask(&*asked(json!({ "ca": tls.ca() }))).await.unwrap_err();
}

#[tokio::test]
async fn s3_lets_in_who_has_the_right_secret_and_the_right_to_do_what_is_asked() {
    let server = SigningS3::start();
    let write = |(account, secret): (String, String)| {
        json!({
            "url": "s3://media",
            "mode": "write",
            "endpoint": format!("http://127.0.0.1:{}", server.port),
            "account": account,
            "secret": secret,
        })
    };
    let (shop, secret) = server.user("shop");
    assert_eq!(ask(&*check("storage", write((shop.clone(), secret.clone())))).await, Ok(()));
    for not_let_in in
        [(shop, "Wr0ng".to_owned()), ("AKIANOBODY".to_owned(), secret.clone()), server.user("reader")]
    {
        let told = ask(&*check("storage", write(not_let_in))).await.unwrap_err();
        assert!(told.starts_with("access is denied: ") && !told.contains(&secret), "{told}");
    }
}

#[tokio::test]
async fn google_takes_gives_back_and_deletes_an_object_of_who_has_the_key() {
    let mut server = GoogleStorage::start();
    let settings = |account: &Path, more: &Value| {
        let mut settings = gs(&server, more);
        settings["service_account"] = json!(account);
        settings
    };
    let account = server.account(true);
    let write = check("storage", settings(&account, &json!({ "mode": "write" })));
    let text = std::fs::read_to_string(&account).unwrap();
    let key = serde_json::from_str::<Value>(&text).unwrap()["private_key"].as_str().unwrap().to_owned();
    let repeated = format!("{text} or {key} or {}", Value::from(&*key));
    assert_eq!(without_secrets(&repeated), repeated);
    assert_eq!(ask(&*write).await, Ok(()));
    assert_eq!(without_secrets(&repeated), "… or … or \"…\"");
    let exists = check("storage", settings(&account, &json!({ "path": "logo.svg" })));
    assert_eq!(ask(&*exists).await, Err("the object is not there: not found".to_owned()));
    let wrong = check("storage", settings(&server.account(false), &json!({ "mode": "write" })));
    let told = ask(&*wrong).await.unwrap_err();
    assert!(told.starts_with("access is denied: "), "{told}");
    let elsewhere = settings(&account, &json!({ "mode": "write", "url": "gs://none" }));
    let told = ask(&*check("storage", elsewhere)).await.unwrap_err();
    assert!(told.starts_with("there is no such place in the storage"), "{told}");
    server.program.freeze();
    assert_eq!(ask_briefly(&*write).await, Err("timed out".to_owned()));
    server.program.signal(Signal::SIGCONT);
    assert_eq!(ask(&*write).await, Ok(()));
    server.program.kill();
    let told = ask_within(&*write, Duration::from_secs(5)).await.unwrap_err();
    assert!(told.starts_with("nothing can be written: "), "{told}");
    server.program.restart();
    server.wait();
    assert_eq!(ask(&*write).await, Ok(()));
}

#[tokio::test]
async fn a_key_of_google_that_is_replaced_counts_from_the_next_question_on() {
    let server = GoogleStorage::start();
    let (account, other) = (server.account(true), server.account(false));
    let kept = server.program.folder.path().join("mounted.json");
    let copy = |from: &Path| std::fs::copy(from, &kept).unwrap();
    copy(&account);
    let write = check("storage", gs(&server, &json!({ "mode": "write", "service_account": kept })));
    assert_eq!(ask(&*write).await, Ok(()));
    copy(&other);
    let told = ask(&*write).await.unwrap_err();
    assert!(told.starts_with("access is denied: "), "{told}");
    copy(&account);
    assert_eq!(ask(&*write).await, Ok(()));
}

#[tokio::test]
async fn credentials_that_the_environment_names_are_hidden_and_replaced_as_those_of_the_settings_are() {
    const NAME: &str =
        "credentials_that_the_environment_names_are_hidden_and_replaced_as_those_of_the_settings_are";
    let Some(file) = std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from) else {
        // The environment is a process's: this test once more, in one of its own.
        let place = tempfile::tempdir().unwrap();
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args([NAME, "--exact"]).env("GOOGLE_APPLICATION_CREDENTIALS", place.path().join("adc.json"));
        again.env("AWS_ACCESS_KEY_ID", "shop").env("AWS_SECRET_ACCESS_KEY", "S3cret-of-aws");
        assert!(again.status().unwrap().success());
        return;
    };
    let server = GoogleStorage::start();
    let write = check("storage", gs(&server, &json!({ "mode": "write" })));
    let told = ask(&*write).await.unwrap_err();
    assert!(told.starts_with("the file of `GOOGLE_APPLICATION_CREDENTIALS` cannot be used"), "{told}");
    for (own, let_in) in [(true, true), (false, false), (true, true)] {
        std::fs::copy(server.account(own), &file).unwrap();
        let asked = ask(&*write).await;
        assert_eq!(asked.is_ok(), let_in, "{asked:?}");
        let text = std::fs::read_to_string(&file).unwrap();
        let key = serde_json::from_str::<Value>(&text).unwrap()["private_key"].as_str().unwrap().to_owned();
        assert_eq!(without_secrets(&format!("{text} or {key}")), "… or …");
    }
    let nowhere = json!({ "url": "s3://media", "path": "logo.svg", "endpoint": "http://127.0.0.1:1" });
    let amazon = check("storage", nowhere);
    ask(&*amazon).await.unwrap_err();
    assert_eq!(without_secrets("S3cret-of-aws"), "…");
}

fn gs(server: &GoogleStorage, more: &Value) -> Value {
    let mut settings =
        json!({ "url": "gs://media", "endpoint": format!("http://127.0.0.1:{}", server.port) });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

#[tokio::test]
async fn a_bucket_that_is_not_there_fails_even_where_the_object_may_be_missing() {
    let server = S3::start();
    let settings = s3(&server, &json!({ "url": "s3://none", "mode": "write" }));
    let told = ask(&*check("storage", settings)).await.unwrap_err();
    assert!(told.starts_with("there is no such place in the storage"), "{told}");
}

#[tokio::test]
async fn a_server_that_freezes_or_dies_fails_and_one_that_comes_back_passes() {
    let mut server = S3::start();
    let write = check("storage", s3(&server, &json!({ "mode": "write" })));
    assert_eq!(ask(&*write).await, Ok(()));
    server.program.freeze();
    assert_eq!(ask_briefly(&*write).await, Err("timed out".to_owned()));
    server.program.signal(Signal::SIGCONT);
    assert_eq!(ask(&*write).await, Ok(()));
    server.program.kill();
    let told = ask_within(&*write, Duration::from_secs(5)).await.unwrap_err();
    assert!(told.starts_with("nothing can be written: "), "{told}");
    server.program.restart();
    server.wait();
    assert_eq!(ask(&*write).await, Ok(()));
}

#[tokio::test]
async fn what_could_not_be_deleted_is_deleted_before_the_next_question() {
    let server = S3::start();
    let way = Way::to(server.port);
    let mut settings = s3(&server, &json!({ "mode": "write" }));
    settings["endpoint"] = format!("http://127.0.0.1:{}", way.port).into();
    let write = check("storage", settings);
    way.swallow_deletes(true);
    assert_eq!(ask_within(&*write, Duration::from_secs(2)).await, Err("timed out".to_owned()));
    assert!(server.files().iter().any(|file| file.starts_with("probe-")), "{:?}", server.files());
    way.swallow_deletes(false);
    assert_eq!(ask(&*write).await, Ok(()));
    assert!(server.files().is_empty());
}

/// A way to a server, on which requests to delete can get lost.
struct Way {
    port: u16,
    swallow: Arc<AtomicBool>,
}

impl Way {
    fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = Self { port: listener.local_addr().unwrap().port(), swallow: Arc::default() };
        let swallow = Arc::clone(&way.swallow);
        thread::spawn(move || {
            for client in listener.incoming().map(Result::unwrap) {
                let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let (back, front) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let (asked, answered) = (Arc::clone(&swallow), Arc::default());
                thread::spawn(move || carry(client, server, &asked));
                thread::spawn(move || carry(back, front, &answered));
            }
        });
        way
    }

    fn swallow_deletes(&self, swallow: bool) {
        self.swallow.store(swallow, Ordering::Relaxed);
    }
}

/// Carries bytes until one side is gone.
fn carry(mut from: TcpStream, mut to: TcpStream, swallow: &AtomicBool) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let lost = bytes.starts_with(b"POST /media?delete") && swallow.load(Ordering::Relaxed);
        if !lost && to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
}

#[tokio::test]
async fn azure_takes_gives_back_and_deletes_an_object_and_recovers() {
    let mut server = Azurite::start();
    server.make_container("media").await;
    let endpoint = server.endpoint();
    let settings = |secret: &str| {
        json!({
            "url": "az://media",
            "mode": "write",
            "endpoint": endpoint,
            "account": Azurite::ACCOUNT,
            "secret": secret,
        })
    };
    let write = check("storage", settings(Azurite::KEY));
    assert_eq!(ask(&*write).await, Ok(()));
    let wrong = "d3JvbmcgUzNjcmV0IHdyb25nIFMzY3JldCB3cm9uZyBTM2NyZXQgd3JvbmcgUzNjcmV0IQ==";
    let told = ask(&*check("storage", settings(wrong))).await.unwrap_err();
    assert!(told.starts_with("access is denied: "), "{told}");
    assert_eq!(ask(&*write).await, Ok(()));
    server.program.freeze();
    assert_eq!(ask_briefly(&*write).await, Err("timed out".to_owned()));
    server.program.signal(Signal::SIGCONT);
    assert_eq!(ask(&*write).await, Ok(()));
    // Told to end and not killed: it keeps in memory for seconds what containers there are.
    server.program.end(Signal::SIGTERM);
    let told = ask_within(&*write, Duration::from_secs(5)).await.unwrap_err();
    assert!(told.starts_with("nothing can be written: "), "{told}");
    server.program.restart();
    server.wait();
    assert_eq!(ask(&*write).await, Ok(()));
}
