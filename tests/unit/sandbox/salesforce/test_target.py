"""What a path of the REST interface leads to."""

import pytest

from sandbox.salesforce.fault import Endpoint
from sandbox.salesforce.target import Target, target_of


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/services/oauth2/token", Target(Endpoint.TOKEN)),
        ("/services/data/v60.0/composite/sobjects/A__c/X__c", Target(Endpoint.UPSERT, 60, "A__c", "X__c")),
        ("/services/data/v46.0/composite/sobjects/A__c/X__c", Target(Endpoint.UPSERT, 46, "A__c", "X__c")),
        ("/services/data/v31.0/sobjects/A__c/X__c/one", Target(Endpoint.UPSERT, 31, "A__c", "X__c", "one")),
        (
            "/services/data/v60.0/sobjects/A__c/X__c/a%2Fb%20%C3%BC",
            Target(Endpoint.UPSERT, 60, "A__c", "X__c", "a/b ü"),
        ),
        ("/services/data/v60.0/query", Target(Endpoint.QUERY, 60)),
        ("/services/data/v31.0/query/", Target(Endpoint.QUERY, 31)),
        ("/services/data/v60.0/query/01g-2000", Target(Endpoint.QUERY, 60, locator="01g-2000")),
    ],
)
def test_a_path_names_its_target(path: str, target: Target) -> None:
    """Version, object, field and external id, or a query's locator, are read off the path, decoded."""
    assert target_of(path) == target


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/services/oauth2/token/",
        "/services/oauth2/revoke",
        "/services/data/v60.0/composite/sobjects/A__c",
        "/services/data/v60.0/composite/sobjects/A__c/X__c/",
        "/services/data/v60.1/composite/sobjects/A__c/X__c",
        "/services/data/60.0/composite/sobjects/A__c/X__c",
        "/services/data/v45.0/composite/sobjects/A__c/X__c",
        "/services/data/v30.0/sobjects/A__c/X__c/one",
        "/services/data/v69.0/sobjects/A__c/X__c/one",
        "/services/data/v60.0/sobjects/A__c/X__c/",
        "/services/data/v60.0/sobjects/A__c/X__c/a/b",
        "/services/data/v60.0/query/A__c/X__c/one",
        "/services/data/v60.0/query/01g-2000/",
        "/services/data/v30.0/query",
        "/services/data/v60.0",
        "/services/data/v60.0/queryAll",
    ],
)
def test_any_other_path_leads_nowhere(path: str) -> None:
    """Unknown resources and versions are nobody's, and a collection needs version 46."""
    assert target_of(path) is None
