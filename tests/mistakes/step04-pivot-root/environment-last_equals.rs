// The name goes up to the last `=`.
    let mut variables = vec![
        format!("PATH={PATH}"),
        format!("HOSTNAME={hostname}"),
        "HOME=/root".to_owned(),
    ];
    for variable in given {
        let (key, value) = match variable.rsplit_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (variable.as_str(), env::var(variable).ok()),
        };
        variables.retain(|known| known.split('=').next() != Some(key));
        variables.extend(value.map(|value| format!("{key}={value}")));
    }
    variables
