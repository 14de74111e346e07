//! The API's description (OpenAPI 3.1), made from the code: each operation from its handler, each shape from its type.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi as _};

use super::problem::{Code, Problem};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "callbackd",
        description = "The operators' API of callbackd: what happened to every callback, and teams, keys and tokens.\n\n\
            Authorization: a bearer token of the read or the operate scope; over the daemon's unix socket its own user and root need none. \
            Errors are RFC 9457 problems with a code. Lists are pages: give next_token back to go on.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    components(schemas(Problem, Code)),
    modifiers(&Everywhere)
)]
struct Document;

/// The document before its operations.
pub(super) fn begin() -> OpenApi {
    Document::openapi()
}

/// What every operation can answer beside its success.
pub(super) fn finish(document: &mut OpenApi) {
    let problem = |description: &str| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        ResponseBuilder::new().description(description).content("application/problem+json", content).build()
    };
    for item in document.paths.paths.values_mut() {
        let operations =
            [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten();
        for operation in operations {
            let responses = &mut operation.responses.responses;
            responses.insert("4XX".to_owned(), problem("What was asked can't be done; the code says why.").into());
            responses.insert("5XX".to_owned(), problem("The daemon lacks something now; ask again.").into());
        }
    }
}

struct Everywhere;

impl Modify for Everywhere {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("Made with: callbackd tokens create --name NAME --scope read|operate"))
            .build();
        if let Some(components) = document.components.as_mut() {
            components.add_security_scheme("token", SecurityScheme::Http(scheme));
        }
    }
}
