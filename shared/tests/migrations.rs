//! The kind `migrations`, of tables that sqlx, Diesel and refinery themselves have made and filled, on real servers and in files.
//!
//! Django and Alembic stand in `tests/interop`, beside their own commands. Flyway, which is Java's, is not to be had here: its table
//! is made as its documentation has it.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod servers;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use diesel::Connection as _;
use diesel_migrations::{FileBasedMigrations, MigrationHarness as _};
use nix::sys::signal::Signal;
use refinery::config::{Config, ConfigDbType};
use refinery::{Runner, Target};
use serde_json::{Value, json};
use servers::{Mariadb, Postgres, ask, ask_briefly, check};
use shared::checks::KINDS;
use shared::kind::Refused;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection as _, MySqlConnection, PgConnection, SqliteConnection};

struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    /// A folder with these files, and an empty database of SQLite.
    fn new(files: &[(&str, &str)]) -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap() };
        for (name, text) in files.iter().chain(&[("shop.db", "")]) {
            project.write(name, text);
        }
        project
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn url(&self) -> String {
        format!("sqlite://{}", self.path("shop.db"))
    }

    fn sql(&self, statements: &str) {
        let output = Command::new("sqlite3").arg(self.path("shop.db")).arg(statements).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// What is told, and of what by name.
    async fn told(&self, tool: &str, more: Value) -> Option<String> {
        told(&self.url(), tool, more).await
    }

    /// The same of the files in the folder `m`.
    async fn told_of_files(&self, tool: &str) -> Option<String> {
        self.told(tool, json!({ "folders": [self.path("m")] })).await
    }
}

async fn told(url: &str, tool: &str, more: Value) -> Option<String> {
    let mut settings = json!({ "url": url, "tool": tool });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ask(&*check("migrations", settings)).await.err()
}

const GOODS: (&str, &str) = ("m/1_goods.sql", "CREATE TABLE goods (id INT);\n");
const PRICES: (&str, &str) = ("m/20_prices.up.sql", "CREATE TABLE prices (id INT);\n");
const NO_PRICES: (&str, &str) = ("m/20_prices.down.sql", "DROP TABLE prices;\n");

async fn migrator(project: &Project) -> Migrator {
    Migrator::new(Path::new(&project.path("m"))).await.unwrap()
}

#[tokio::test]
async fn sqlx_on_postgresql_is_told_from_none_to_all_and_what_has_changed_or_is_unknown() {
    let server = Postgres::start(&[]);
    let project = Project::new(&[GOODS, PRICES, NO_PRICES, ("m/notes.md", "")]);
    let mut owner =
        PgConnection::connect(&format!("postgres://postgres@127.0.0.1:{}/shop", server.port)).await.unwrap();
    let folders = json!({ "folders": [project.path("m")] });
    let of = |more: Value| {
        let mut settings = folders.clone();
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let url = server.url();
        async move { told(&url, "sqlx", settings).await }
    };
    assert_eq!(
        of(json!({})).await.as_deref(),
        Some("2 migrations are not applied: there is no table of migrations: 1, 20")
    );
    migrator(&project).await.run_to(1, &mut owner).await.unwrap();
    let told = of(json!({})).await.unwrap();
    assert!(told.starts_with("the role lacks a right: "), "{told}");
    server.sql("GRANT SELECT ON _sqlx_migrations TO probe");
    assert_eq!(of(json!({})).await.as_deref(), Some("1 migration is not applied: 20"));
    migrator(&project).await.run(&mut owner).await.unwrap();
    assert_eq!(of(json!({ "unknown": "fail" })).await, None);

    project.write("m/1_goods.sql", "CREATE TABLE goods (id BIGINT);\n");
    assert!(matches!(migrator(&project).await.run(&mut owner).await, Err(MigrateError::VersionMismatch(1))));
    assert_eq!(of(json!({})).await.as_deref(), Some("1 migration has changed since it was applied: 1"));
    project.write(GOODS.0, GOODS.1);
    fs::remove_file(project.path(PRICES.0)).unwrap();
    fs::remove_file(project.path(NO_PRICES.0)).unwrap();
    assert!(matches!(migrator(&project).await.run(&mut owner).await, Err(MigrateError::VersionMissing(20))));
    assert_eq!(of(json!({})).await, None);
    let unknown = "1 applied migration is unknown here: 20";
    assert_eq!(of(json!({ "unknown": "warn" })).await.as_deref(), Some(unknown));
    assert_eq!(of(json!({ "unknown": "fail" })).await.as_deref(), Some(unknown));

    let elsewhere = json!({ "table": "kept._sqlx_migrations" });
    assert_eq!(
        of(elsewhere.clone()).await.as_deref(),
        Some("1 migration is not applied: there is no table of migrations: 1")
    );
    server.sql("CREATE SCHEMA kept; GRANT USAGE ON SCHEMA kept TO probe; ALTER TABLE _sqlx_migrations SET SCHEMA kept");
    assert_eq!(of(elsewhere).await, None);
}

#[tokio::test]
async fn sqlx_on_sqlite_is_told_by_its_checksums_too() {
    let project = Project::new(&[GOODS, PRICES]);
    let mut owner = SqliteConnection::connect(&project.url()).await.unwrap();
    migrator(&project).await.run(&mut owner).await.unwrap();
    assert_eq!(project.told_of_files("sqlx").await, None);
    project.write(GOODS.0, "CREATE TABLE goods (id BIGINT);\n");
    assert!(matches!(migrator(&project).await.run(&mut owner).await, Err(MigrateError::VersionMismatch(1))));
    assert_eq!(
        project.told_of_files("sqlx").await.as_deref(),
        Some("1 migration has changed since it was applied: 1")
    );
}

#[tokio::test]
async fn a_migration_of_sqlx_that_failed_halfway_is_told_as_failed_until_it_is_mended() {
    let server = Mariadb::start(&[]);
    server.sql("GRANT ALL ON shop.* TO probe@'127.0.0.1'");
    let project = Project::new(&[
        GOODS,
        ("m/20_prices.sql", "CREATE TABLE prices (id INT); CREATE TABLE goods (id INT);\n"),
    ]);
    let migrations =
        check("migrations", json!({ "url": server.url(), "tool": "sqlx", "folders": [project.path("m")] }));
    let mut owner = MySqlConnection::connect(&server.url()).await.unwrap();
    assert!(migrator(&project).await.run(&mut owner).await.is_err());
    assert!(matches!(migrator(&project).await.run(&mut owner).await, Err(MigrateError::Dirty(20))));
    assert_eq!(ask(&*migrations).await, Err("1 migration has failed: 20".to_owned()));
    project.write("m/20_prices.sql", "CREATE TABLE prices (id INT);\n");
    server.sql("DELETE FROM shop._sqlx_migrations WHERE version = 20; DROP TABLE shop.prices");
    assert_eq!(ask(&*migrations).await, Err("1 migration is not applied: 20".to_owned()));
    migrator(&project).await.run(&mut owner).await.unwrap();
    assert_eq!(ask(&*migrations).await, Ok(()));
}

#[tokio::test]
async fn diesels_own_answer_is_ours_from_none_to_all() {
    let project = Project::new(&[
        ("m/00000000000000_setup/up.sql", "SELECT 1;\n"),
        ("m/2026-01-01-000000_goods/up.sql", "CREATE TABLE goods (id INT);\n"),
        ("m/2026-01-01-000000_goods/down.sql", "DROP TABLE goods;\n"),
        ("m/20260102000000_prices/up.sql", "CREATE TABLE prices (id INT);\n"),
        ("m/.keep", ""),
    ]);
    let source = || FileBasedMigrations::from_path(project.path("m")).unwrap();
    let first = "3 migrations are not applied: there is no table of migrations: 00000000000000, 20260101000000, 20260102000000";
    assert_eq!(project.told_of_files("diesel").await.as_deref(), Some(first));
    let mut database = diesel::SqliteConnection::establish(&project.path("shop.db")).unwrap();
    for left in
        ["00000000000000, 20260101000000, 20260102000000", "20260101000000, 20260102000000", "20260102000000"]
    {
        assert!(database.has_pending_migration(source()).unwrap());
        let told = project.told_of_files("diesel").await.unwrap();
        assert!(told.ends_with(&format!("not applied: {left}")), "{told}");
        database.run_next_migration(source()).unwrap();
    }
    assert!(!database.has_pending_migration(source()).unwrap());
    assert_eq!(project.told_of_files("diesel").await, None);
    database.revert_last_migration(FileBasedMigrations::from_path(project.path("m")).unwrap()).unwrap_err();
    project.write("m/20260102000000_prices/down.sql", "DROP TABLE prices;\n");
    database.revert_last_migration(source()).unwrap();
    assert_eq!(
        project.told_of_files("diesel").await.as_deref(),
        Some("1 migration is not applied: 20260102000000")
    );
}

#[tokio::test]
async fn refinerys_table_is_read_with_its_checksums() {
    let project = Project::new(&[
        ("m/V1__goods.sql", "CREATE TABLE goods (id INT);\n"),
        ("m/more/U20__prices.sql", "CREATE TABLE prices (id INT);\n"),
        ("m/mod.rs", ""),
        ("m/README.md", ""),
    ]);
    let run = |target: Target| {
        let migrations = refinery::load_sql_migrations(project.path("m")).unwrap();
        let mut database = Config::new(ConfigDbType::Sqlite).set_db_path(&project.path("shop.db"));
        Runner::new(&migrations)
            .set_target(target)
            .run(&mut database)
            .map(|report| report.applied_migrations().len())
    };
    let none = "2 migrations are not applied: there is no table of migrations: 1, 20";
    assert_eq!(project.told_of_files("refinery").await.as_deref(), Some(none));
    assert_eq!(run(Target::Version(1)).unwrap(), 1);
    assert_eq!(project.told_of_files("refinery").await.as_deref(), Some("1 migration is not applied: 20"));
    assert_eq!(run(Target::Latest).unwrap(), 1);
    assert_eq!(run(Target::Latest).unwrap(), 0);
    assert_eq!(project.told_of_files("refinery").await, None);
    project.write("m/V1__goods.sql", "CREATE TABLE goods (id BIGINT);\n");
    assert!(run(Target::Latest).unwrap_err().to_string().contains("is different than filesystem one"));
    assert_eq!(
        project.told_of_files("refinery").await.as_deref(),
        Some("1 migration has changed since it was applied: 1")
    );
}

/// As Flyway makes it, on PostgreSQL.
const FLYWAY: &str = "CREATE TABLE flyway_schema_history (installed_rank INT NOT NULL PRIMARY KEY, version VARCHAR(50), \
    description VARCHAR(200) NOT NULL, type VARCHAR(20) NOT NULL, script VARCHAR(1000) NOT NULL, checksum INTEGER, \
    installed_by VARCHAR(100) NOT NULL, installed_on TIMESTAMP NOT NULL DEFAULT now(), execution_time INTEGER NOT NULL, \
    success BOOLEAN NOT NULL)";

#[tokio::test]
async fn flyways_table_as_it_is_documented_is_read() {
    let server = Postgres::start(&[]);
    let project = Project::new(&[
        ("m/V1__goods.sql", "CREATE TABLE goods (id INT);\n"),
        ("m/more/V1.1__prices.sql", "CREATE TABLE prices (id INT);\n"),
        ("m/R__views.sql", "CREATE VIEW dear AS SELECT 1;\r\n"),
    ]);
    let migrations =
        check("migrations", json!({ "url": server.url(), "tool": "flyway", "folders": [project.path("m")] }));
    let none = "3 migrations are not applied: there is no table of migrations: 1, 1.1, R__views.sql";
    assert_eq!(ask(&*migrations).await, Err(none.to_owned()));
    server.sql(FLYWAY);
    server.sql("GRANT SELECT ON flyway_schema_history TO probe");
    let applied = |rank: u8, version: &str, script: &str, sum: i64, success: bool| {
        server.sql(&format!(
            "INSERT INTO flyway_schema_history VALUES ({rank}, {version}, 'x', 'SQL', '{script}', {sum}, 'me', now(), 1, {success})"
        ));
    };
    applied(1, "'1'", "V1__goods.sql", crc("CREATE TABLE goods (id INT);"), true);
    applied(2, "'1.1'", "more/V1.1__prices.sql", crc("CREATE TABLE prices (id INT);"), false);
    assert_eq!(ask(&*migrations).await, Err("1 migration has failed: 1.1".to_owned()));
    server.sql("UPDATE flyway_schema_history SET success = true");
    assert_eq!(ask(&*migrations).await, Err("1 migration is not applied: R__views.sql".to_owned()));
    applied(3, "NULL", "R__views.sql", crc("CREATE VIEW dear AS SELECT 1;"), true);
    assert_eq!(ask(&*migrations).await, Ok(()));
    project.write("m/V1__goods.sql", "CREATE TABLE goods (id BIGINT);\n");
    assert_eq!(ask(&*migrations).await, Err("1 migration has changed since it was applied: 1".to_owned()));
}

/// What `gzip` thinks of it, as a signed number.
fn crc(text: &str) -> i64 {
    let python = format!("import zlib; print(zlib.crc32({text:?}.encode()))");
    let output = Command::new("python3").args(["-c", &python]).output().unwrap();
    let sum: u32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    i64::from(sum.cast_signed())
}

#[tokio::test]
async fn a_list_of_what_a_folder_holds_will_do_in_place_of_the_files() {
    let project = Project::new(&[
        ("sqlx.txt", "# made by ls\n0001_goods.sql\n1_goods.down.sql\nREADME.md\n20\n"),
        ("diesel.txt", "2026-01-01-000000_goods\n20260102000000 # prices\nREADME.md\n"),
        ("refinery.txt", "V1__goods.sql\nmod.rs\n20\n"),
        ("flyway.txt", "V1__goods.sql\n2.0\nR__views.sql\n"),
        ("alembic.txt", "b a\na\n"),
        ("django.txt", "shop.0001_squashed shop.0001_initial shop.0002_prices\nshop.0003_goods\n"),
        ("none.txt", "# nothing\n"),
    ]);
    for (tool, left) in [
        ("sqlx", "1, 20"),
        ("diesel", "20260101000000, 20260102000000"),
        ("refinery", "1, 20"),
        ("flyway", "1, 2, R__views.sql"),
        ("alembic", "a, b"),
        ("django", "shop.0001_squashed, shop.0003_goods"),
    ] {
        let told =
            project.told(tool, json!({ "expected": project.path(&format!("{tool}.txt")) })).await.unwrap();
        assert!(told.ends_with(&format!("there is no table of migrations: {left}")), "{tool}: {told}");
        let none = project.told(tool, json!({ "expected": project.path("none.txt") })).await.unwrap();
        assert!(none.starts_with("no migration files are found: "), "{tool}: {none}");
    }
    project.sql("CREATE TABLE django_migrations (app TEXT, name TEXT)");
    let listed = || project.told("django", json!({ "expected": project.path("django.txt") }));
    project.sql("INSERT INTO django_migrations VALUES ('shop', '0001_initial'), ('shop', '0002_prices')");
    assert_eq!(listed().await.as_deref(), Some("1 migration is not applied: shop.0003_goods"));
    project.sql("INSERT INTO django_migrations VALUES ('shop', '0003_goods')");
    assert_eq!(listed().await, None);
    project.sql("CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('z')");
    let at = async |more: Value| {
        let mut settings = json!({ "expected": project.path("alembic.txt") });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        project.told("alembic", settings).await
    };
    assert_eq!(at(json!({})).await.as_deref(), Some("the database is at a revision that is unknown here: z"));
    assert_eq!(at(json!({ "unknown": "ignore" })).await, None);
    project.sql("UPDATE alembic_version SET version_num = 'a'");
    assert_eq!(at(json!({})).await.as_deref(), Some("1 migration is not applied: b"));
    project.sql("UPDATE alembic_version SET version_num = 'b'");
    assert_eq!(at(json!({})).await, None);
}

#[tokio::test]
async fn files_that_cannot_be_read_or_understood_never_pass() {
    let class = "from django.db import migrations\n\n\nclass Migration(migrations.Migration):\n";
    let project = Project::new(&[
        ("shop/migrations/__init__.py", ""),
        ("shop/migrations/0001_initial.py", &format!("{class}    initial = True\n")),
        ("notes/migrations/0001_no_package.py", class),
    ]);
    project.sql("CREATE TABLE django_migrations (app TEXT, name TEXT); INSERT INTO django_migrations VALUES ('shop', '0001_initial')");
    let told = || project.told("django", json!({ "folders": [project.path("*/migrations")] }));
    assert_eq!(told().await, None);
    let second = "shop/migrations/0002_second.py";
    for (text, reason) in [
        (format!("{class}    replaces = OLD\n"), "a migration file cannot be understood"),
        (
            format!("{class}    dependencies = [('shop', '0009_gone')]\n"),
            "the migration files do not fit together",
        ),
        (
            format!("{class}    dependencies = [('shop', '0002_second')]\n"),
            "the migration files do not fit together",
        ),
        ("x = (".to_owned(), "a migration file cannot be understood"),
        ("#".repeat(5 << 20), "the migration files cannot be read"),
    ] {
        project.write(second, &text);
        let told = told().await.unwrap();
        assert!(told.starts_with(&format!("{reason}: ")), "{told}");
    }
    fs::remove_file(project.path(second)).unwrap();
    nix::unistd::mkfifo(project.path(second).as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let pipe = told().await.unwrap();
    assert!(pipe.starts_with("the migration files cannot be read: "), "{pipe}");
    fs::remove_file(project.path(second)).unwrap();
    assert_eq!(told().await, None);
    let nowhere = project
        .told("django", json!({ "folders": [project.path("*/migrations"), project.path("typo")] }))
        .await;
    assert!(nowhere.unwrap().starts_with("no migration files are found: "));
    let label = json!({ "apps": { "staff": project.path("shop/migrations") } });
    assert_eq!(
        project.told("django", label).await.as_deref(),
        Some("1 migration is not applied: staff.0001_initial")
    );
}

#[tokio::test]
async fn a_server_that_freezes_or_refuses_is_told_as_such_and_then_passes_again_without_a_restart() {
    let server = Postgres::start(&[]);
    let project = Project::new(&[("list", "1\n")]);
    server.sql("CREATE TABLE _sqlx_migrations (version BIGINT, success BOOLEAN, checksum BYTEA)");
    server.sql(
        r"INSERT INTO _sqlx_migrations VALUES (1, true, '\x00'); GRANT SELECT ON _sqlx_migrations TO probe",
    );
    let settings = json!({ "url": server.url(), "tool": "sqlx", "expected": project.path("list") });
    let migrations = check("migrations", settings.clone());
    assert_eq!(ask(&*migrations).await, Ok(()));
    server.signal_all(Signal::SIGSTOP);
    let begun = Instant::now();
    assert_eq!(ask_briefly(&*migrations).await, Err("timed out".to_owned()));
    assert!(begun.elapsed() < Duration::from_secs(2));
    server.signal_all(Signal::SIGCONT);
    assert_eq!(ask(&*migrations).await, Ok(()));
    project.write("list", "1\n2\n");
    assert_eq!(ask(&*migrations).await, Err("1 migration is not applied: 2".to_owned()));
    server.sql(r"INSERT INTO _sqlx_migrations VALUES (2, true, '\x00')");
    assert_eq!(ask(&*migrations).await, Ok(()));
    server.sql("ALTER ROLE probe PASSWORD 'changed'");
    let told = ask(&*check("migrations", settings)).await.unwrap_err();
    assert!(told.starts_with("access is denied: ") && !told.contains("S3cret"), "{told}");
}

#[test]
fn settings_that_make_no_sense_are_all_told() {
    let mistakes = |settings: Value| {
        let kind = KINDS.iter().find(|kind| kind.name == "migrations").unwrap();
        match kind.build(settings) {
            Err(Refused::Sense(mistakes)) => {
                mistakes.into_iter().map(|mistake| mistake.key.unwrap_or("")).collect()
            }
            Err(refused) => panic!("{refused:?}"),
            Ok(_) => Vec::new(),
        }
    };
    let url = "postgres://db/shop";
    assert_eq!(mistakes(json!({ "url": url, "tool": "sqlx", "folders": ["m"], "table": "kept.t" })), [""; 0]);
    assert_eq!(mistakes(json!({ "url": "redis://db", "tool": "sqlx" })), ["url", ""]);
    assert_eq!(mistakes(json!({ "url": url, "tool": "sqlx", "folders": ["m"], "expected": "list" })), [""]);
    let apps = json!({ "url": url, "tool": "sqlx", "apps": { "a": "m" }, "table": "a.b.c" });
    assert_eq!(mistakes(apps), ["apps", "table"]);
    for table in ["", "a;b", "a\"b", "a`b", "a b", "a."] {
        assert_eq!(
            mistakes(json!({ "url": url, "tool": "sqlx", "folders": ["m"], "table": table })),
            ["table"]
        );
    }
}
