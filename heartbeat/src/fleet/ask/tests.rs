use super::*;

#[test]
fn moved_names_a_node_and_a_nameless_one_is_the_one_that_said_so() {
    let refusal = |details: &str| Refusal {
        code: "MOVED".to_owned(),
        details: details.to_owned(),
        kind: Some(ServerErrorKind::Moved),
    };
    let from = Host { name: "h".to_owned(), port: 1 };
    let target = |details: &str| refusal(details).target(Some(&from)).map(|host| host.to_string());
    assert_eq!(target("3999 10.0.0.1:6381").as_deref(), Some("10.0.0.1:6381"));
    assert_eq!(target("3999 :6381").as_deref(), Some("h:6381"));
    assert_eq!(target("3999 ::1:6381").as_deref(), Some("[::1]:6381"));
    for bad in ["", "3999", "3999 ?:6381", "3999 h:99999", "3999 h"] {
        assert_eq!(target(bad), None, "{bad}");
    }
}

#[test]
fn a_denial_within_a_script_is_one_in_the_words_of_every_server() {
    let at = |details: &str| {
        Refusal { code: "ERR".to_owned(), details: details.to_owned(), kind: None }.at("h:1").to_string()
    };
    let kind = |details: &str| {
        Refusal { code: "ERR".to_owned(), details: details.to_owned(), kind: None }.at("h:1").kind()
    };
    // Redis 7.0, Valkey 9.1.
    let old =
        "The user executing the script can't run this command or subcommand script: 3c67, on @user_script:1.";
    let new = "ACL failure in script: User a has no permissions to run the 'set' command script: on @user_script:1.";
    assert_eq!(kind(old), ErrorKind::Denied);
    assert_eq!(kind(new), ErrorKind::Denied);
    assert_eq!(at(old), "h:1: ERR The user executing the script can't run this command or subcommand");
    assert_eq!(at(new), "h:1: ERR ACL failure in script: User a has no permissions to run the 'set' command");
    assert_eq!(kind("Error running script: ACL failure"), ErrorKind::Server);
}
