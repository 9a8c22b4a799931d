package archive

// Portable tells whether an extended attribute of an archive is set on disk; for who shows a layer without unpacking it.
func Portable(attr string) bool { return portable(attr) }
