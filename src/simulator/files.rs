//! `/v1/files` (WIRE.md §1).

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    body::Body,
    extract::{Multipart, Path, Query, State, multipart::MultipartError},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Sim, batches,
    blob::{Blob, Writer},
    error::ApiError,
    front::{Caller, Struck},
    output::Content,
    validate::check_upload,
    world::{FileObject, StoredFile, expiry},
};

const PURPOSES: [&str; 6] = [
    "assistants",
    "batch",
    "fine-tune",
    "vision",
    "user_data",
    "evals",
];

pub(super) async fn upload(
    State(sim): State<Sim>,
    Extension(caller): Extension<Caller>,
    form: Multipart,
) -> Result<Json<FileObject>, ApiError> {
    let limit = sim.settings.limits.uploads_per_minute;
    let minute = Duration::from_secs(60);
    let taken = {
        let (mut world, now) = sim.world();
        let window = world.uploads.entry(caller.org.clone()).or_default();
        window.take(now, limit, minute)
    };
    taken.map_err(|wait| batches::too_many(&sim, wait, "uploads per minute"))?;
    let form = Form::read(form, sim.settings.limits.file_bytes).await?;
    let purpose = form.purpose.ok_or_else(|| ApiError::missing("purpose"))?;
    if !PURPOSES.contains(&purpose.as_str()) {
        let message = format!("'{purpose}' is not one of {PURPOSES:?}.");
        return Err(ApiError::invalid("purpose", Some("invalid_value"), message));
    }
    let (filename, blob) = form.file.ok_or_else(|| ApiError::missing("file"))?;
    let blob = Arc::new(blob);
    if purpose == "batch" {
        let checked = check_upload(&blob).map_err(broken)?;
        checked
            .map_err(|message| ApiError::invalid("file", Some("invalid_file_format"), message))?;
    }
    let lifetime = lifetime(form.anchor.as_deref(), form.seconds.as_deref())?;
    let (mut world, now) = sim.world();
    let id = world.file_id();
    let id = world.add_file(StoredFile {
        id,
        key: caller.key.clone(),
        filename,
        purpose,
        created_at: now,
        expires_at: lifetime.map(|after| now + after),
        content: Content::Stored(blob),
    });
    let file = world
        .file(&caller.key, &id)
        .ok_or_else(|| ApiError::not_found("file", &id))?;
    object(file).map(Json)
}

#[derive(Default)]
struct Form {
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
    file: Option<(String, Blob)>,
}

impl Form {
    async fn read(mut multipart: Multipart, limit: u64) -> Result<Self, ApiError> {
        let mut form = Form::default();
        while let Some(mut field) = multipart.next_field().await.map_err(bad_form)? {
            match field.name().unwrap_or_default() {
                "purpose" => form.purpose = Some(field.text().await.map_err(bad_form)?),
                "expires_after[anchor]" => {
                    form.anchor = Some(field.text().await.map_err(bad_form)?);
                }
                "expires_after[seconds]" => {
                    form.seconds = Some(field.text().await.map_err(bad_form)?);
                }
                "file" => {
                    let name = field.file_name().unwrap_or("file").to_owned();
                    let mut writer = Writer::default();
                    while let Some(piece) = field.chunk().await.map_err(bad_form)? {
                        writer.push(&piece).map_err(broken)?;
                        if writer.len() > limit {
                            return Err(too_large(limit));
                        }
                    }
                    form.file = Some((name, writer.finish().map_err(broken)?));
                }
                _ => {}
            }
        }
        Ok(form)
    }
}

fn lifetime(anchor: Option<&str>, seconds: Option<&str>) -> Result<Option<Duration>, ApiError> {
    let (anchor, seconds) = match (anchor, seconds) {
        (None, None) => return Ok(None),
        (Some(anchor), Some(seconds)) => (anchor, seconds),
        (None, _) => return Err(ApiError::missing("expires_after.anchor")),
        (_, None) => return Err(ApiError::missing("expires_after.seconds")),
    };
    if anchor != "created_at" {
        let message = "'expires_after.anchor' must be 'created_at'.";
        return Err(ApiError::invalid(
            "expires_after.anchor",
            Some("invalid_value"),
            message,
        ));
    }
    match seconds.parse().ok().and_then(expiry) {
        Some(lifetime) => Ok(Some(lifetime)),
        None => {
            let message = "'expires_after.seconds' must be an integer from 3600 to 2592000.";
            Err(ApiError::invalid(
                "expires_after.seconds",
                Some("invalid_value"),
                message,
            ))
        }
    }
}

fn bad_form(error: MultipartError) -> ApiError {
    ApiError::new(error.status(), None, error.body_text())
}

fn too_large(limit: u64) -> ApiError {
    let message = format!("File exceeds the maximum of {limit} bytes for batches.");
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        Some("file_too_large"),
        message,
    )
}

/// The simulator's own disk failed it.
pub(super) fn broken(error: std::io::Error) -> ApiError {
    let message = format!("The simulator cannot keep the file: {error}");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, None, message)
}

fn object(file: &StoredFile) -> Result<FileObject, ApiError> {
    Ok(FileObject {
        id: file.id.clone(),
        object: "file",
        bytes: file.content.len().map_err(broken)?,
        created_at: file.created_at.as_secs(),
        expires_at: file.expires_at.map(|at| at.as_secs()),
        filename: file.filename.clone(),
        purpose: file.purpose.clone(),
        status: "processed",
        status_details: None,
    })
}

fn no_such_file(id: &str) -> ApiError {
    ApiError::not_found("file", id)
}

pub(super) async fn get(
    State(sim): State<Sim>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<FileObject>, ApiError> {
    let (world, _) = sim.world();
    let file = world
        .file(&caller.key, &id)
        .ok_or_else(|| no_such_file(&id))?;
    object(file).map(Json)
}

pub(super) async fn content(
    State(sim): State<Sim>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let (content, name) = {
        let (world, _) = sim.world();
        let file = world
            .file(&caller.key, &id)
            .ok_or_else(|| no_such_file(&id))?;
        (
            file.content.clone(),
            file.filename.replace(['"', '\r', '\n'], "_"),
        )
    };
    let disposition = format!("attachment; filename=\"{name}\"");
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, disposition.as_str()),
    ];
    Ok((headers, Body::from_stream(content.stream())).into_response())
}

pub(super) async fn delete(
    State(sim): State<Sim>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if !sim.world().0.remove_file(&caller.key, &id) {
        return Err(no_such_file(&id));
    }
    Ok(Json(json!({"id": id, "object": "file", "deleted": true})))
}

#[derive(Deserialize)]
pub(super) struct ListFiles {
    purpose: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
    order: Option<String>,
}

pub(super) async fn list(
    State(sim): State<Sim>,
    Extension(caller): Extension<Caller>,
    Extension(struck): Extension<Struck>,
    Query(query): Query<ListFiles>,
) -> Result<Json<Value>, ApiError> {
    let limit = query.limit.unwrap_or(10_000);
    if !(1..=10_000).contains(&limit) {
        let message = "'limit' must be between 1 and 10000.";
        return Err(ApiError::invalid("limit", Some("invalid_value"), message));
    }
    let (world, now) = sim.world();
    let before = struck.visible_until(now);
    let wanted = world.files.values().filter(|file| {
        file.key == caller.key
            && file.created_at <= before
            && query
                .purpose
                .as_ref()
                .is_none_or(|purpose| *purpose == file.purpose)
    });
    let mut files: Vec<&StoredFile> = wanted.collect();
    if query.order.as_deref() != Some("asc") {
        files.reverse();
    }
    let start = match &query.after {
        None => 0,
        Some(after) => match files.iter().position(|file| file.id == *after) {
            Some(position) => position + 1,
            None => return Err(no_such_file(after)),
        },
    };
    let page = files[start..].iter().take(limit);
    let data: Vec<FileObject> = page.map(|file| object(file)).collect::<Result<_, _>>()?;
    Ok(Json(json!({
        "object": "list",
        "first_id": data.first().map(|file| &file.id),
        "last_id": data.last().map(|file| &file.id),
        "has_more": files.len() > start + data.len(),
        "data": data,
    })))
}
