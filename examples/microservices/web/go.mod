module example.org/harbour/web

go 1.19
