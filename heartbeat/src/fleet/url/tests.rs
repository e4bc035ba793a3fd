use super::*;

fn parse(text: &str) -> Url {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn every_form_of_url_is_read() {
    let host = |name: &str, port| Host { name: name.to_owned(), port };
    let url = parse("redis://localhost");
    assert_eq!((url.servers, url.db), (Servers::One(host("localhost", 6_379)), 0));
    assert!(url.tls.is_none() && url.login.is_none());
    let url = parse("rediss://me:p%40ss%3A@[::1]:7000/15?ca=/etc/ca%20file.pem&cert=c.pem&key=k.pem");
    assert_eq!((url.servers, url.db), (Servers::One(host("::1", 7_000)), 15));
    assert_eq!(url.login, Some(Login { user: Some("me".to_owned()), password: "p@ss:".to_owned() }));
    let files = Files { ca: Some("/etc/ca file.pem".into()), client: Some(("c.pem".into(), "k.pem".into())) };
    assert_eq!(url.tls, Some(files));
    let url = parse("redis+sentinel://:pw@a,b:1/orders/2?sentinel_user=s&sentinel_password=t");
    let sentinels = vec![host("a", 26_379), host("b", 1)];
    assert_eq!(url.servers, Servers::Sentinel { sentinels, service: "orders".to_owned() });
    assert_eq!(url.sentinel_login, Some(Login { user: Some("s".to_owned()), password: "t".to_owned() }));
    assert_eq!(url.db, 2);
    let url = parse("rediss+cluster://a:7000,[fe80::1]:7001");
    assert_eq!(url.servers, Servers::Cluster(vec![host("a", 7_000), host("fe80::1", 7_001)]));
    assert_eq!(url.tls, Some(Files::default()));
    for socket in ["unix:///run/r.sock?db=3&user=u&pass=p", "redis+unix://u:p@/run/r.sock?db=3"] {
        let url = parse(socket);
        assert_eq!((url.servers, url.db), (Servers::Unix("/run/r.sock".into()), 3));
        assert_eq!(url.login, Some(Login { user: Some("u".to_owned()), password: "p".to_owned() }));
    }
    // A password may hold what does not divide a URL.
    let url = parse("redis://:a@b:c@localhost/");
    assert_eq!(url.login.map(|login| login.password).as_deref(), Some("a@b:c"));
}

const BAD: [(&str, Invalid); 27] = [
    ("", Invalid::Scheme),
    ("localhost:6379", Invalid::Scheme),
    ("http://:S3cret@localhost", Invalid::Scheme),
    ("redis://", Invalid::Host),
    ("redis:///0", Invalid::Host),
    ("redis://:S3cret@", Invalid::Host),
    ("redis://localhost:0", Invalid::Host),
    ("redis://localhost:S3cret", Invalid::Host),
    ("redis://[S3cret]:1", Invalid::Host),
    ("redis://me:S3cret/word@localhost", Invalid::Host),
    ("redis://a,b", Invalid::Hosts),
    ("redis://S3cret@localhost", Invalid::Credentials),
    ("redis://me:@localhost", Invalid::Credentials),
    ("redis://me:S3cret%zz@localhost", Invalid::Encoding),
    ("redis://me:S3cret%0a@localhost", Invalid::Encoding),
    ("redis://me:S3cret%ff@localhost", Invalid::Encoding),
    ("redis://localhost/S3cret", Invalid::Database),
    ("redis://localhost/-1", Invalid::Database),
    ("redis+cluster://localhost/1", Invalid::Database),
    ("redis+sentinel://localhost/orders/S3cret", Invalid::Database),
    ("redis+sentinel://localhost/", Invalid::Service),
    ("redis://me:S3cret?word@localhost", Invalid::Option),
    ("redis://localhost?ca=S3cret", Invalid::Option),
    ("redis://localhost?S3cret=1", Invalid::Option),
    ("rediss://localhost?ca=a&ca=b", Invalid::Option),
    ("rediss://localhost?cert=S3cret", Invalid::Certificate),
    ("redis://me:S3cret#word@localhost", Invalid::Fragment),
];

#[test]
fn a_bad_url_is_refused_and_nothing_of_it_is_told() {
    for (text, expected) in BAD {
        let error = text.parse::<Url>().expect_err(text);
        assert_eq!(error, expected, "{text}");
        assert!(!format!("{error} {error:?}").contains("S3cret"), "{text}: {error}");
    }
}

#[test]
fn a_url_shows_its_hosts_and_no_secret() {
    let shown = [
        ("redis://me:S3cret@h/3", "redis://h:6379/3"),
        ("rediss://:S3cret@[::1]:1?ca=x", "rediss://[::1]:1"),
        ("unix://:S3cret@/r.sock", "unix:///r.sock"),
        ("redis+sentinel://:S3cret@a,b/s/1?sentinel_password=S3cret", "redis+sentinel://a:26379,b:26379/s/1"),
        ("rediss+cluster://u:S3cret@a", "rediss+cluster://a:6379"),
    ];
    for (text, display) in shown {
        let url = parse(text);
        assert_eq!(url.to_string(), display);
        let debug = format!("{url:?} {:?} {:?}", url.login, url.sentinel_login);
        assert!(!debug.contains("S3cret"), "{debug}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_of_urls_panic(scheme in 0..8_usize, rest in ".{0,60}") {
        let schemes =
            ["redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "x", "valkey"];
        // Whether it is a URL or not: it is read, and shown, without a panic.
        if let Ok(url) = format!("{}://{rest}", schemes[scheme]).parse::<Url>() {
            proptest::prop_assert!(!url.to_string().is_empty());
        }
    }
}
