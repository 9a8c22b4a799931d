module example.org/harbour/cargo

go 1.19
