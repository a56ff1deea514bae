module kaniko

go 1.26.0
