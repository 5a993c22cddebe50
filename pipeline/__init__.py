"""What flows and what moves it: values, spec, stages, runner, cache, registry, errors, CLI."""
