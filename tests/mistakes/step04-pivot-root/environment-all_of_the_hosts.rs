// The host's secrets come along.
    let _ = hostname;
    let mut variables = step01_uts::host_environment();
    variables.extend(given.iter().filter(|variable| variable.contains('=')).cloned());
    variables
