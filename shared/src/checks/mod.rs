//! The kinds of check: one file a kind, with its settings, its question and its tests.
//!
//! A new kind is a file and two lines here: its `mod`, and its place in [`KINDS`].

#[cfg(feature = "run")]
pub mod battery;
#[cfg(all(feature = "run", any(feature = "_sql", feature = "memcached", feature = "redis")))]
pub mod cache;
#[cfg(all(feature = "celery", feature = "run"))]
pub mod celery;
#[cfg(feature = "redis")]
pub mod cluster;
#[cfg(feature = "run")]
pub mod command;
#[cfg(feature = "run")]
pub mod cpu;
#[cfg(feature = "_sql")]
pub mod database;
#[cfg(feature = "run")]
pub mod disk;
#[cfg(feature = "django-q")]
pub mod django_q;
#[cfg(feature = "dns")]
pub mod dns;
#[cfg(feature = "upstream")]
pub mod feed;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "mail")]
pub mod mail;
#[cfg(feature = "run")]
pub mod memory;
#[cfg(feature = "_sql")]
pub mod migrations;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
#[cfg(all(feature = "redis", feature = "run"))]
pub mod redis;
#[cfg(feature = "upstream")]
pub mod statuspage;
#[cfg(feature = "storage")]
pub mod storage;
#[cfg(feature = "run")]
pub mod tcp;
#[cfg(feature = "run")]
pub mod temperature;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "upstream")]
mod upstream;
pub mod worker;

#[cfg(feature = "run")]
use crate::kind::Kind;

/// Every kind of check that this build has, by name.
#[cfg(feature = "run")]
pub static KINDS: &[Kind] = &[
    Kind::of::<battery::Battery>(),
    #[cfg(any(feature = "_sql", feature = "memcached", feature = "redis"))]
    Kind::of::<cache::Cache>(),
    #[cfg(feature = "celery")]
    Kind::of::<celery::Celery>(),
    #[cfg(feature = "redis")]
    Kind::of::<cluster::check::Cluster>(),
    Kind::of::<command::Command>(),
    Kind::of::<cpu::Cpu>(),
    #[cfg(feature = "_sql")]
    Kind::of::<database::Settings>(),
    Kind::of::<disk::Disk>(),
    #[cfg(feature = "django-q")]
    Kind::of::<django_q::DjangoQ>(),
    #[cfg(feature = "dns")]
    Kind::of::<dns::Dns>(),
    #[cfg(feature = "upstream")]
    Kind::of::<feed::Feed>(),
    #[cfg(feature = "http")]
    Kind::of::<http::Http>(),
    #[cfg(feature = "kafka")]
    Kind::of::<kafka::Kafka>(),
    #[cfg(feature = "mail")]
    Kind::of::<mail::Mail>(),
    Kind::of::<memory::Memory>(),
    #[cfg(feature = "_sql")]
    Kind::of::<migrations::Settings>(),
    #[cfg(feature = "rabbitmq")]
    Kind::of::<rabbitmq::RabbitMq>(),
    #[cfg(feature = "redis")]
    Kind::of::<redis::Redis>(),
    #[cfg(feature = "upstream")]
    Kind::of::<statuspage::StatusPage>(),
    #[cfg(feature = "storage")]
    Kind::of::<storage::Storage>(),
    Kind::of::<tcp::Tcp>(),
    Kind::of::<temperature::Temperature>(),
    #[cfg(feature = "tls")]
    Kind::of::<tls::Tls>(),
    Kind::of::<worker::check::Worker>(),
];
