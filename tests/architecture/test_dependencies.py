"""What handlers are given is resolved one after another (`api.app.create_litestar` says why)."""

from litestar.routes import HTTPRoute

from api.app import create_litestar


def test_no_route_resolves_dependencies_in_a_task_group() -> None:
    models = {
        (handler.handler_name, method): model
        for route in create_litestar().routes
        if isinstance(route, HTTPRoute)
        for method, (handler, model) in route.route_handler_map.items()
    }

    at_once = {
        place: [dependency.key for dependency in batch]
        for place, model in models.items()
        for batch in model.dependency_batches
        if len(batch) > 1
    }

    assert {} == at_once
    assert any(model.dependency_batches for model in models.values())
