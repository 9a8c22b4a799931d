package volume

import (
	"path"
	"strings"

	"berth/base/fault"
)

// CheckName refuses names that no volume can have, in Docker's words.
func CheckName(name string) error {
	if len(name) == 1 {
		return fault.New(fault.Invalid, "volume name is too short, names should be at least two alphanumeric characters")
	}
	ok := name != "" && len(name) <= 255 && alphanumeric(name[0])
	for i := 1; ok && i < len(name); i++ {
		c := name[i]
		ok = alphanumeric(c) || c == '_' || c == '.' || c == '-'
	}
	if !ok {
		return fault.New(fault.Invalid, `%q includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`, name)
	}
	return nil
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// CheckSubpath refuses subpaths that lead out of a volume by their words alone; what links in it do is seen when it is opened.
func CheckSubpath(subpath string) error {
	clean := path.Clean(subpath)
	if strings.HasPrefix(subpath, "/") || clean == ".." || strings.HasPrefix(clean, "../") {
		return fault.New(fault.Invalid, "subpath must be a relative path within the volume")
	}
	return nil
}

// checkUser refuses ids that could not be a file's name. Containers' are hex digits.
func checkUser(user string) error {
	if user == "" || len(user) > 200 || user[0] == '.' || strings.ContainsAny(user, "/\x00") {
		return fault.New(fault.Invalid, "%q cannot be the user of a volume", user)
	}
	return nil
}
