// A variable without a value is empty.
    let mut variables = vec![
        format!("PATH={PATH}"),
        format!("HOSTNAME={hostname}"),
        "HOME=/root".to_owned(),
    ];
    for variable in given {
        let (key, value) = variable.split_once('=').unwrap_or((variable, ""));
        let value = env::var(key).unwrap_or(value.to_owned());
        variables.retain(|known| known.split('=').next() != Some(key));
        variables.push(format!("{key}={value}"));
    }
    variables
