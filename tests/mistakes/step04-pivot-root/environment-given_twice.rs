// Two values for one variable: which one counts is the program's guess.
    let mut variables = vec![
        format!("PATH={PATH}"),
        format!("HOSTNAME={hostname}"),
        "HOME=/root".to_owned(),
    ];
    for variable in given {
        match env::var(variable) {
            Ok(value) => variables.push(format!("{variable}={value}")),
            Err(_) => variables.push(variable.clone()),
        }
    }
    variables
