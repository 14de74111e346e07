//! The API's description (OpenAPI 3.1), made from the code: each operation from its handler, each shape from its type,
//! and the right that an operation needs from the table in `ops::policy`.

use utoipa::openapi::path::Operation as Documented;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi as _};

use super::problem::{Code, Problem};
use crate::ops::policy::Operation;

/// The security scheme's name.
const TOKEN: &str = "token";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "callbackd",
        description = "The operators' API of callbackd. It shows what happened to every callback, and manages teams, keys and tokens.\n\n\
            Authorization: a bearer token. Each operation needs one right, which its security requirement names: read, operate or secrets. \
            The right operate includes read; secrets stands alone. The daemon's own user and root need no token on the unix socket.\n\n\
            An error is a problem of RFC 9457 with a code. A list comes in pages: to get the next one, send next_token back.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    components(schemas(Problem, Code)),
    modifiers(&Everywhere)
)]
struct Document;

/// The document before its operations are added.
pub(super) fn begin() -> OpenApi {
    Document::openapi()
}

/// Adds to every operation the right that it needs, and the errors that it can answer with.
pub(super) fn finish(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        let operations =
            [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten();
        for operation in operations {
            secure(operation);
            let responses = &mut operation.responses.responses;
            responses.insert("4XX".to_owned(), problem("The request can't be carried out; the code says why.").into());
            responses.insert("5XX".to_owned(), problem("The daemon can't answer now; ask again.").into());
        }
    }
}

/// Names the right that the policy asks for. What the policy does not know stays without a requirement, which a test
/// finds.
fn secure(operation: &mut Documented) {
    let known = operation.operation_id.as_deref().and_then(Operation::by_name);
    operation.security = known.map(|known| vec![SecurityRequirement::new(TOKEN, [known.needs().name()])]);
}

fn problem(description: &str) -> utoipa::openapi::Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content("application/problem+json", content).build()
}

struct Everywhere;

impl Modify for Everywhere {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("Create one with: callbackd tokens create --name NAME --scope read|operate|secrets"))
            .build();
        if let Some(components) = document.components.as_mut() {
            components.add_security_scheme(TOKEN, SecurityScheme::Http(scheme));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_documented_operation_is_one_of_the_policy_and_the_other_way_round() {
        let (_, document) = super::super::described();
        let mut documented = BTreeSet::new();
        for (path, item) in &document.paths.paths {
            let operations = [&item.get, &item.post, &item.put, &item.patch, &item.delete];
            for operation in operations.into_iter().flatten() {
                let id = operation.operation_id.as_deref().unwrap_or_default();
                assert!(documented.insert(id.to_owned()), "{id} is documented twice");
                let known = Operation::by_name(id).unwrap_or_else(|| panic!("{path}: the policy knows no {id}"));
                let needed = SecurityRequirement::new(TOKEN, [known.needs().name()]);
                assert!(operation.security == Some(vec![needed]), "{path} {id}");
            }
        }
        let known: BTreeSet<_> = Operation::ALL.iter().map(|operation| operation.name().to_owned()).collect();
        assert_eq!(documented, known);
    }
}
