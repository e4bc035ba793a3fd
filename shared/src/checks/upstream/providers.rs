//! Who is known by name, and where they tell of themselves. This is the one place that says so; the documentation shows it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// A provider in one of the tables.
pub trait Provider: 'static + Sized {
    /// All of them, by name.
    const ALL: &'static [Self];
    /// The word in a configuration.
    fn name(&self) -> &'static str;
}

/// A status page of Atlassian's Statuspage.
#[derive(Debug)]
pub struct Page {
    name: &'static str,
    /// The page itself.
    pub url: &'static str,
    /// What of it is looked at where the settings do not say.
    pub component: &'static str,
}

const fn page(name: &'static str, url: &'static str, component: &'static str) -> Page {
    Page { name, url, component }
}

impl Provider for Page {
    const ALL: &'static [Self] = &[
        page("cloudflare", "https://www.cloudflarestatus.com", ""),
        page("digitalocean", "https://status.digitalocean.com", ""),
        page("fly", "https://status.flyio.net", ""),
        page("github", "https://www.githubstatus.com", ""),
        page("github-au", "https://au.githubstatus.com", ""),
        page("github-eu", "https://eu.githubstatus.com", ""),
        page("github-jp", "https://jp.githubstatus.com", ""),
        page("github-us", "https://us.githubstatus.com", ""),
        page("npm", "https://status.npmjs.org", "Package installation"),
        page("platform.sh", "https://status.platform.sh", ""),
        page("pypi", "https://status.python.org", "PyPI"),
        page("render", "https://status.render.com", ""),
        page("sentry", "https://status.sentry.io", ""),
        page("vercel", "https://www.vercel-status.com", ""),
    ];

    fn name(&self) -> &'static str {
        self.name
    }
}

/// A feed of RSS or Atom.
#[derive(Debug)]
pub struct Channel {
    name: &'static str,
    /// Where it is. `{service-region}` stands for what the settings say, the region being optional.
    pub url: &'static str,
}

const fn channel(name: &'static str, url: &'static str) -> Channel {
    Channel { name, url }
}

impl Channel {
    /// What stands for a service and its region.
    pub const SERVICE: &'static str = "{service-region}";
}

impl Provider for Channel {
    const ALL: &'static [Self] = &[
        channel("aws", "https://status.aws.amazon.com/rss/{service-region}.rss"),
        channel("azure", "https://rssfeed.azure.status.microsoft/en-us/status/feed/"),
        channel("google-cloud", "https://status.cloud.google.com/en/feed.atom"),
        channel("heroku", "https://status.heroku.com/feed"),
        channel("hetzner", "https://status.hetzner.com/en.atom"),
    ];

    fn name(&self) -> &'static str {
        self.name
    }
}

/// A provider, as a configuration names it.
#[derive(Debug)]
pub struct Named<P: 'static>(pub &'static P);

impl<P: Provider> Named<P> {
    fn names() -> Vec<&'static str> {
        P::ALL.iter().map(P::name).collect()
    }
}

impl<'de, P: Provider> Deserialize<'de> for Named<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let found = P::ALL.iter().find(|provider| provider.name() == text);
        let unknown = || D::Error::custom(format_args!("not one of {}", Self::names().join(", ")));
        found.map(Self).ok_or_else(unknown)
    }
}

impl<P: Provider> JsonSchema for Named<P> {
    fn schema_name() -> Cow<'static, str> {
        "Provider".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": Self::names() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = include_str!("../../../README.md");

    #[test]
    fn the_documentation_shows_every_provider() {
        for Page { name, url, component } in Page::ALL {
            let row = format!("| `{name}` | {url} | {component} |").replace("|  |", "| |");
            assert!(README.contains(&row), "shared/README.md: {row}");
        }
        for Channel { name, url } in Channel::ALL {
            let row = format!("| `{name}` | `{url}` |");
            assert!(README.contains(&row), "shared/README.md: {row}");
        }
    }

    #[test]
    fn providers_stand_in_order_each_with_a_url_of_https() {
        assert!(Page::ALL.is_sorted_by_key(|page| page.name));
        assert!(Channel::ALL.is_sorted_by_key(|channel| channel.name));
        let channels = Channel::ALL.iter().map(|channel| channel.url.replace(Channel::SERVICE, "ec2"));
        for url in Page::ALL.iter().map(|page| page.url.to_owned()).chain(channels) {
            assert_eq!(url::Url::parse(&url).unwrap().scheme(), "https", "{url}");
        }
    }
}
