//! `/openapi.json`: the endpoints as `OpenAPI` 3.1 describes them, made of their list and of the configuration in force.

use serde_json::{Map, Value, json};

use super::board::{LIVENESS, Setup};
use super::endpoints::{ENDPOINTS, Endpoint};
use super::formats::FORMS;

/// The description, with no more in it than this configuration serves.
pub fn document(setup: &Setup) -> Value {
    let paths: Map<_, _> = ENDPOINTS
        .iter()
        .filter(|endpoint| (endpoint.is_there)(setup))
        .map(|endpoint| (endpoint.path.to_owned(), path(endpoint, setup)))
        .collect();
    let mut document = json!({
        "openapi": "3.1.0",
        "info": { "title": "checker", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "schemas": schemas() },
    });
    if !setup.server.access.token.expose().is_empty() {
        document["components"]["securitySchemes"] = json!({
            "token": { "type": "apiKey", "in": "header", "name": "X-Probe-Token" },
            "bearer": { "type": "http", "scheme": "bearer" },
        });
        document["security"] = json!([{ "token": [] }, { "bearer": [] }]);
    }
    document
}

fn path(endpoint: &Endpoint, setup: &Setup) -> Value {
    let operation = |method: &str| {
        let id = endpoint.path.trim_matches('/').replace(['/', '{', '}', '.'], "-");
        json!({
            "operationId": format!("{method}-{id}"),
            "summary": endpoint.about,
            "responses": responses(endpoint, setup, method == "get"),
        })
    };
    json!({ "parameters": parameters(endpoint, setup), "get": operation("get"), "head": operation("head") })
}

fn parameters(endpoint: &Endpoint, setup: &Setup) -> Value {
    let mut parameters = Vec::new();
    let media = (endpoint.media)();
    let formats: Vec<_> =
        FORMS.iter().filter(|form| media.contains(&form.media)).map(|form| form.name).collect();
    if !formats.is_empty() {
        parameters.push(json!({ "name": "format", "in": "query", "description": "The format, in place of `Accept`.", "schema": { "enum": formats } }));
    }
    if endpoint.path.contains('{') {
        let mut names: Vec<_> = setup.subsets().collect();
        if !names.contains(&LIVENESS) {
            names.push(LIVENESS);
        }
        parameters
            .push(json!({ "name": "subset", "in": "path", "required": true, "schema": { "enum": names } }));
    }
    parameters.into()
}

fn responses(endpoint: &Endpoint, setup: &Setup, with_body: bool) -> Value {
    let error = ["application/json"];
    let media = (endpoint.media)();
    let answer = |about: &str, media: &[&str], schema: &str| {
        let of = |media: &&str| {
            let schema = if *media == "application/json" {
                json!({ "$ref": format!("#/components/schemas/{schema}") })
            } else {
                json!({})
            };
            ((*media).to_owned(), json!({ "schema": schema }))
        };
        let mut answer = json!({ "description": about });
        if with_body {
            answer["content"] = media.iter().map(of).collect::<Map<_, _>>().into();
        }
        answer
    };
    let mut responses = Map::new();
    responses
        .insert("200".to_owned(), answer("It passes, or it is what was asked for.", &media, endpoint.schema));
    if endpoint.fails {
        let status = setup.server.failure_status.to_string();
        responses.insert(status, answer("It does not pass.", &media, endpoint.schema));
    }
    for (status, about) in [
        ("403", "It may not be asked from here, or without the token."),
        ("404", "There is nothing at this path."),
        ("406", "There is no such format here."),
    ] {
        responses.entry(status).or_insert_with(|| answer(about, &error, "Error"));
    }
    responses.into()
}

fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let words = json!({ "enum": ["ok", "warning", "fail", "unknown"] });
    json!({
        "Error": { "type": "object", "required": ["error"], "properties": { "error": text } },
        "Report": {
            "type": "object",
            "required": ["status", "checks"],
            "properties": {
                "status": { "enum": ["ok", "warning", "fail", "ready", "not_ready", "started", "not_started"] },
                "checks": { "type": "object", "additionalProperties": { "oneOf": [words, { "$ref": "#/components/schemas/Check" }] } },
            },
        },
        "Check": {
            "type": "object",
            "required": ["status"],
            "properties": {
                "status": words,
                "reason": { "type": ["string", "null"] },
                "duration_ms": { "type": "number", "minimum": 0 },
            },
        },
        "Version": {
            "type": "object",
            "required": ["service", "environment", "version"],
            "additionalProperties": { "type": ["string", "null"] },
        },
        "Document": { "type": "object", "required": ["openapi", "info", "paths"] },
    })
}
