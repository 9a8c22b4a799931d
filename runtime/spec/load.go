package spec

import (
	"errors"
	"io/fs"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/runtime/oci/config"
)

// maxFile is far more than any configuration has; it keeps a wrong file from filling the memory.
const maxFile = 64 << 20

// Load reads a config.json and checks it. An error says where: by line, column and member if the text
// cannot be read, by member if what it says is wrong.
func Load(path string) (*specs.Spec, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "JSON specification file %s not found", path)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "read the configuration")
	}
	if st.Size() > maxFile {
		return nil, fault.New(fault.Invalid, "%s: %d bytes are too many for a configuration", path, st.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "read the configuration")
	}
	s, err := Parse(text)
	if err != nil {
		return nil, fault.In(err, "%s", path)
	}
	return s, nil
}

// Parse is Load for a text.
func Parse(text []byte) (*specs.Spec, error) {
	c, err := config.Parse(text)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "")
	}
	filter, err := c.Seccomp()
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "linux.seccomp")
	}
	if filter != nil {
		c.Spec.Linux.Seccomp = filter
	}
	return c.Spec, Validate(c.Spec)
}
