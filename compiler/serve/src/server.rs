//! Connections, routes, limits, the log, and the end.

use crate::access::{self, Keys, Refusal};
use crate::api::errors::ApiError;
use crate::api::{chat, completions, openapi, tokens};
use crate::app::{App, RequestLimits};
use crate::engine;
use crate::figures::{RequestLabels, ServerFigures};
use crate::listening::Listening;
use crate::request_log::RequestLog;
use crate::served::ServedModel;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, ErrorCode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

/// How a server is run.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where it listens.
    pub address: SocketAddr,
    /// Sequences that are run at a time.
    pub places: usize,
    /// Sequences that may wait.
    pub queue: usize,
    /// Bytes of a body, at most.
    pub body: usize,
    /// New tokens of an answer, at most; the context without a number.
    pub tokens: Option<usize>,
    /// Time of a request, at most.
    pub time: Duration,
    /// Open connections, at most.
    pub connections: usize,
    /// Time in which a client has to send a request, or to read what was sent.
    pub patience: Duration,
    /// Time for open requests once the server is to end.
    pub drain: Duration,
    /// Keys; without any, everybody may ask.
    pub keys: Keys,
}

/// How often it is looked whether the server is to end.
const LOOK: Duration = Duration::from_millis(50);

/// Serves a model until `told` says that it is over: then open requests get their answers, and it ends.
///
/// # Errors
/// The address cannot be had; there is not enough memory.
pub fn serve(model: ServedModel, options: &ServeOptions, told: Arc<dyn Listening + Send>) -> Result<(), Diagnostics> {
    let (model, figures) = (Arc::new(model), Arc::new(ServerFigures::default()));
    let (handle, thread) = engine::start(Arc::clone(&model), Arc::clone(&figures), options.places, options.queue)?;
    let app = Arc::new(App {
        model,
        engine: handle,
        figures,
        limits: RequestLimits {
            body: options.body,
            tokens: options.tokens,
            time: options.time,
            connections: options.connections,
            patience: options.patience,
        },
        keys: options.keys.clone(),
        local: options.address.ip().is_loopback(),
        draining: AtomicBool::new(false),
        requests: AtomicU64::new(0),
        started: SystemTime::now(),
    });
    // One thread: the processors are the engine's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let failed = |e: std::io::Error| Diagnostic::new("", format!("the server cannot begin: {e}"));
    let runtime = runtime.map_err(failed)?;
    let served = runtime.block_on(accept(app, options, told));
    // Whoever still waits is told by a connection that ends.
    runtime.shutdown_timeout(Duration::from_millis(100));
    if served.is_ok() {
        let _ = thread.join();
    }
    served
}

async fn accept(app: Arc<App>, options: &ServeOptions, told: Arc<dyn Listening + Send>) -> Result<(), Diagnostics> {
    let taken = |e: std::io::Error| {
        let error = Diagnostic::new(options.address.to_string(), format!("cannot be listened at: {e}"));
        Diagnostics::from(
            error.code(ErrorCode::OPTION).note("--port takes another one; --port 0 takes any that is free"),
        )
    };
    let listener = TcpListener::bind(options.address).await.map_err(taken)?;
    let router = router(Arc::clone(&app), Arc::clone(&told));
    told.ready(listener.local_addr().map_err(taken)?);
    let places = Arc::new(Semaphore::new(app.limits.connections));
    let graceful = GracefulShutdown::new();
    while !told.is_over() {
        let Ok(accepted) = tokio::time::timeout(LOOK, listener.accept()).await else { continue };
        // Too many open files, or a client that went away: others are served.
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tokio::spawn(turn_away(stream));
            continue;
        };
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(app.limits.patience));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(app.limits.patience)
            .max_headers(64)
            .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        let open = app.figures.connections.clone();
        open.inc();
        tokio::spawn(async move {
            // A client that breaks off is no error of the server.
            let _ = connection.await;
            open.dec();
            drop(place);
        });
    }
    app.draining.store(true, Ordering::SeqCst);
    drop(listener);
    let _ = tokio::time::timeout(options.drain, graceful.shutdown()).await;
    Ok(())
}

/// Tells a client that there are too many.
async fn turn_away(mut stream: TcpStream) {
    let error = ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, "too many connections are open", 1);
    let body = serde_json::to_string(error.body()).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(answer.as_bytes())).await;
}

/// What handlers of the middleware share.
#[derive(Clone)]
struct WatchedServer {
    app: Arc<App>,
    told: Arc<dyn Listening + Send>,
}

fn router(app: Arc<App>, told: Arc<dyn Listening + Send>) -> Router {
    let watch = WatchedServer { app: Arc::clone(&app), told };
    Router::new()
        .route("/", get(page))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/chat/completions", post(chat::chat_completions))
        .route("/v1/models", get(tokens::models))
        .route("/v1/models/{model}", get(tokens::model))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/tokenizer_info", get(tokens::tokenizer_info))
        .route("/health", get(tokens::health))
        .route("/metrics", get(tokens::metrics))
        .route("/openapi.json", get(openapi::openapi))
        .fallback(unknown)
        .method_not_allowed_fallback(other_method)
        .layer(from_fn_with_state(watch, watched))
        .with_state(app)
}

async fn unknown() -> ApiError {
    let message = "there is nothing at this path; /openapi.json lists what there is";
    ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
}

async fn other_method() -> ApiError {
    let message = "this path is asked for by another method; /openapi.json lists what there is";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message)
}

/// The page, which may load nothing and talk to this server alone.
async fn page() -> Response {
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let mut response = Html(include_str!("page.html")).into_response();
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// Looks who asks, writes the log, and counts.
async fn watched(State(watch): State<WatchedServer>, mut request: Request, next: Next) -> Response {
    let WatchedServer { app, told } = watch;
    let path = request.uri().path().chars().take(200).collect::<String>();
    let route = request.extensions().get::<MatchedPath>().map_or("other".to_string(), |path| path.as_str().into());
    let log = Arc::new(RequestLog::new(told, request.method().as_str(), &path));
    request.extensions_mut().insert(Arc::clone(&log));
    let needs_key = !matches!(path.as_str(), "/" | "/health");
    let mut response = match access::check(request.headers(), &app.keys, app.local, needs_key) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refused(refusal).into_response(),
    };
    let status = response.status().as_u16();
    app.figures.requests.get_or_create(&RequestLabels { path: route, status }).inc();
    log.answered(status);
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer"));
    if headers.get(CONTENT_TYPE).is_some_and(|kind| kind != "text/event-stream") {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

fn refused(refusal: Refusal) -> ApiError {
    let forbidden = |message: &str| ApiError::new(StatusCode::FORBIDDEN, "authentication_error", message);
    match refusal {
        Refusal::Key => {
            let message = "there is no key, or a wrong one; send `Authorization: Bearer KEY`";
            ApiError::new(StatusCode::UNAUTHORIZED, "authentication_error", message).code("invalid_api_key")
        }
        Refusal::Origin => forbidden("pages of other origins may not ask this server"),
        Refusal::Host => forbidden("this server listens to this machine alone, by the names localhost and 127.0.0.1"),
    }
}
