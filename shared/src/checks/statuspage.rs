//! What a provider's status page tells, where it is one of Atlassian's Statuspage: the incidents that are open.
//!
//! The page is looked at in the background. What cannot be told is `unknown`, because a page that does not answer says
//! nothing of whom it is about.

use std::collections::HashSet;
use std::time::Instant;

use schemars::JsonSchema;
use serde::Deserialize;

use super::upstream::date::{self, Unix, age};
use super::upstream::document::Document;
use super::upstream::providers::{Named, Page};
use super::upstream::{Looking, count, listed};
use crate::check::{Check, Failure, Refresh};
use crate::kind::{Contract, Mistake, Settings};
use crate::settings::Url;

/// The incidents that are open on a provider's status page (Atlassian Statuspage): each is a warning. Looked at in the
/// background.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusPage {
    /// A provider that is known by name; or else `url`.
    provider: Option<Named<Page>>,
    /// The address of any other such page, such as `https://status.example.org`: what it tells programs is below it, at
    /// `/api/v2/summary.json`.
    url: Option<Url>,
    /// Only incidents of this component, or of those in the group of this name, as the page calls it. Everything with an
    /// empty one, which is the default except for `npm` and `pypi`.
    component: Option<String>,
    #[serde(flatten)]
    looking: Looking,
}

impl Settings for StatusPage {
    const KIND: &'static str = "statuspage";
    const EXAMPLE: &'static str = "provider = \"github\"\ncomponent = \"Actions\"";
    const CONTRACT: Contract = Contract::Peer("url = \"http://user:S3cret@{peer}/S3cret\"");
    const MORE_CONTRACTS: &'static [&'static str] = &["url = \"https://user:S3cret@{peer}/S3cret\""];
    type Check = StatusPageCheck;

    fn build(self) -> Result<StatusPageCheck, Vec<Mistake>> {
        let mut mistakes = self.looking.mistakes(self.url.as_ref());
        let refresh = self.looking.refresh();
        let known = self.provider.map(|Named(page)| page);
        let url = match (known, self.url) {
            (Some(page), None) => url::Url::parse(page.url).ok(),
            (None, Some(url)) => Some(url.expose().clone()),
            _ => None,
        };
        let Some(url) = url.and_then(summary) else {
            // A URL that has no path is told above.
            if mistakes.iter().all(|mistake| mistake.key != Some("url")) {
                mistakes.push(Mistake::together("either `provider` or `url` says whose page it is"));
            }
            return Err(mistakes);
        };
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let component = self.component.or_else(|| known.map(|page| page.component.to_owned()));
        Ok(StatusPageCheck {
            page: Document::new(url, self.looking.proxy, self.looking.tls),
            component: component.filter(|component| !component.is_empty()),
            refresh,
        })
    }
}

/// Where a page tells programs what it tells.
fn summary(mut page: url::Url) -> Option<Url> {
    page.path_segments_mut().ok()?.pop_if_empty().extend(["api", "v2", "summary.json"]);
    Some(page.into())
}

/// Reads a status page.
#[derive(Debug)]
pub struct StatusPageCheck {
    page: Document<Summary>,
    component: Option<String>,
    refresh: Refresh,
}

#[async_trait::async_trait]
impl Check for StatusPageCheck {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let read = |bytes: &[u8]| {
            let strange =
                |error| Failure::unknown("the answer is no summary of a status page").because(error);
            serde_json::from_slice(bytes).map_err(|error: serde_json::Error| strange(error.to_string()))
        };
        let summary = self.page.fetch(deadline, read).await?;
        judge(&summary, self.component.as_deref(), date::now())
    }

    fn refresh(&self) -> Option<Refresh> {
        Some(self.refresh)
    }
}

/// What of `/api/v2/summary.json` matters.
#[derive(Debug, Deserialize)]
struct Summary {
    components: Vec<Component>,
    incidents: Vec<Incident>,
}

#[derive(Debug, Deserialize)]
struct Component {
    id: String,
    name: String,
    /// The component that is the group.
    group_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Incident {
    name: String,
    status: String,
    updated_at: Option<String>,
    created_at: Option<String>,
    /// Those that it concerns.
    #[serde(default)]
    components: Vec<Component>,
}

impl Incident {
    /// Whatever is not said to be over is not.
    fn is_open(&self) -> bool {
        !matches!(self.status.as_str(), "resolved" | "postmortem")
    }

    fn concerns(&self, ids: &HashSet<&str>) -> bool {
        self.components.iter().any(|component| ids.contains(component.id.as_str()))
    }

    fn told(&self) -> Option<Unix> {
        self.updated_at.as_deref().or(self.created_at.as_deref()).and_then(date::parse)
    }
}

/// What is made of any bytes that a page may be.
#[cfg(fuzzing)]
pub(crate) fn judged(bytes: &[u8], component: Option<&str>) -> Option<Result<(), Failure>> {
    serde_json::from_slice(bytes).ok().map(|summary| judge(&summary, component, 720))
}

fn judge(summary: &Summary, component: Option<&str>, now: Unix) -> Result<(), Failure> {
    let open = summary.incidents.iter().filter(|incident| incident.is_open());
    let open: Vec<_> = match component {
        None => open.collect(),
        Some(name) => {
            let ids = watched(&summary.components, name)?;
            open.filter(|incident| incident.concerns(&ids)).collect()
        }
    };
    if open.is_empty() {
        return Ok(());
    }
    let latest = open.iter().filter_map(|incident| incident.told()).max();
    let latest = latest.map(|then| format!(", last told of {} ago", age(now, then))).unwrap_or_default();
    let reason = format!("{}{latest}", count(open.len(), "incident is open", "incidents are open"));
    Err(Failure::warning(reason).because(listed(open.iter().map(|incident| incident.name.as_str()))))
}

/// The components of that name, and those in a group of that name, by their ids: names may stand several times, in
/// different groups.
fn watched<'a>(components: &'a [Component], name: &str) -> Result<HashSet<&'a str>, Failure> {
    let ids = |wanted: &dyn Fn(&Component) -> bool| -> HashSet<&'a str> {
        components
            .iter()
            .filter(|component| wanted(component))
            .map(|component| component.id.as_str())
            .collect()
    };
    let named = ids(&|component| component.name == name);
    if named.is_empty() {
        return Err(Failure::unknown(format!("the page has no component {name}")));
    }
    let inside = ids(&|component| component.group_id.as_deref().is_some_and(|group| named.contains(group)));
    Ok(&named | &inside)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn mistakes(json: serde_json::Value) -> Vec<Option<&'static str>> {
        let settings: StatusPage = serde_json::from_value(json).unwrap();
        settings
            .build()
            .map_or_else(|all| all.into_iter().map(|mistake| mistake.key).collect(), |_| Vec::new())
    }

    #[test]
    fn senseless_settings_are_mistakes() {
        assert_eq!(mistakes(json!({ "provider": "github" })), []);
        assert_eq!(mistakes(json!({ "url": "https://a/" })), []);
        assert_eq!(mistakes(json!({})), [None]);
        assert_eq!(mistakes(json!({ "provider": "github", "url": "https://a/" })), [None]);
        let wrong = json!({ "url": "mailto:a", "every": "999ms", "max_stale": "999ms", "proxy": "ftp://a" });
        assert_eq!(mistakes(wrong), ["url", "proxy", "every", "max_stale"].map(Some));
        let unknown = serde_json::from_value::<StatusPage>(json!({ "provider": "git" })).unwrap_err();
        assert!(unknown.to_string().starts_with("not one of cloudflare, digitalocean, "), "{unknown}");
    }

    #[test]
    fn a_page_is_asked_at_its_summary_and_a_provider_for_its_component() {
        let check = |json| serde_json::from_value::<StatusPage>(json).unwrap().build().unwrap();
        let asked = |page: &str| summary(url::Url::parse(page).unwrap()).unwrap().expose().to_string();
        assert_eq!(asked("https://a"), "https://a/api/v2/summary.json");
        assert_eq!(asked("https://a/b/"), "https://a/b/api/v2/summary.json");
        assert_eq!(check(json!({ "provider": "pypi" })).component.as_deref(), Some("PyPI"));
        assert_eq!(check(json!({ "provider": "pypi", "component": "" })).component, None);
        assert_eq!(check(json!({ "provider": "fly" })).component, None);
    }

    fn summary_of(json: serde_json::Value) -> Summary {
        serde_json::from_value(json).unwrap()
    }

    fn incident(name: &str, status: &str, component: &str) -> serde_json::Value {
        let component = json!({ "id": component, "name": component, "group_id": null });
        json!({ "name": name, "status": status, "updated_at": "1970-01-01T00:10:00Z", "components": [component] })
    }

    fn told(incidents: &[serde_json::Value], component: Option<&str>) -> Option<String> {
        let components = json!([
            { "id": "g", "name": "Group", "group_id": null },
            { "id": "in", "name": "Inside", "group_id": "g" },
            { "id": "out", "name": "Outside", "group_id": null },
        ]);
        let summary = summary_of(json!({ "components": components, "incidents": incidents }));
        judge(&summary, component, 720).err().map(|failure| failure.to_string())
    }

    #[test]
    fn an_incident_is_open_until_it_is_said_to_be_over() {
        assert_eq!(told(&[], None), None);
        for over in ["resolved", "postmortem"] {
            assert_eq!(told(&[incident("a", over, "in")], None), None);
        }
        for open in ["investigating", "identified", "monitoring", "a new word"] {
            let reason = "1 incident is open, last told of 2 min ago";
            assert_eq!(told(&[incident("a", open, "in")], None).as_deref(), Some(reason));
        }
        let two = [incident("a", "identified", "in"), incident("b", "identified", "out")];
        assert_eq!(told(&two, None).as_deref(), Some("2 incidents are open, last told of 2 min ago"));
        let bare = json!({ "name": "a", "status": "identified", "updated_at": "soon" });
        assert_eq!(told(&[bare], None).as_deref(), Some("1 incident is open"));
    }

    #[test]
    fn a_component_counts_with_those_in_its_group() {
        let inside = [incident("a", "identified", "in")];
        assert!(told(&inside, Some("Inside")).is_some());
        assert!(told(&inside, Some("Group")).is_some());
        assert!(told(&[incident("a", "identified", "g")], Some("Group")).is_some());
        assert_eq!(told(&inside, Some("Outside")), None);
        assert_eq!(told(&inside, Some("Elsewhere")).as_deref(), Some("the page has no component Elsewhere"));
    }

    #[test]
    fn what_incidents_are_called_goes_to_the_log_alone_and_is_of_bounded_length() {
        let many: Vec<_> = (0..1_000).map(|_| incident(&"ü".repeat(10_000), "identified", "in")).collect();
        let summary = summary_of(json!({ "components": [], "incidents": many }));
        let failure = judge(&summary, None, 0).unwrap_err();
        assert!(!failure.reason().contains('ü'));
        let source = std::error::Error::source(&failure).unwrap().to_string();
        assert!(source.contains('ü') && source.len() < 2_000, "{}", source.len());
    }

    proptest! {
        #[test]
        fn no_summary_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), date in ".{0,40}") {
            assert!(serde_json::from_slice::<Summary>(&bytes).is_err());
            let bare = json!({ "name": date, "status": date, "updated_at": date });
            let summary = summary_of(json!({ "components": [], "incidents": [bare] }));
            prop_assert!(judge(&summary, None, 0).is_err());
        }
    }
}
