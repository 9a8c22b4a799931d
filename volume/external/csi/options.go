package csi

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	units "github.com/docker/go-units"

	"berth/base/fault"
)

// options are those of a volume that are not parameters of its driver.
type options struct {
	endpoint   string              // of the driver "csi"
	size       int64               // at least so many bytes; 0: the driver's default
	limit      int64               // at most; 0: any
	block      bool                // access=block: a device instead of a file system
	fstype     string              // for drivers that format
	mountFlags []string            // o=
	mode       string              // access mode; "": one node, many writers where the driver knows it
	readOnly   bool                // mode says so
	handle     string              // an existing volume's id: nothing is created or deleted
	context    map[string]string   // context.KEY= of an existing volume
	secrets    string              // file with secrets
	topology   []map[string]string // where: topology=key=value;key=value, several separated by |
	parameters map[string]string
}

var modes = map[string]csi.VolumeCapability_AccessMode_Mode{
	"single-node-writer":        csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
	"single-node-single-writer": csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
	"single-node-multi-writer":  csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
	"single-node-reader-only":   csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
	"multi-node-reader-only":    csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
	"multi-node-single-writer":  csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER,
	"multi-node-multi-writer":   csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER,
}

func parse(given map[string]string) (*options, error) {
	o := &options{parameters: map[string]string{}, context: map[string]string{}}
	var err error
	for key, value := range given {
		switch key {
		case "endpoint":
			o.endpoint, err = socketOf(value)
		case "size":
			o.size, err = bytes(key, value)
		case "limit":
			o.limit, err = bytes(key, value)
		case "access":
			if value != "mount" && value != "block" {
				err = fault.New(fault.Invalid, "access=%s: it is mount or block", value)
			}
			o.block = value == "block"
		case "fstype", "csi.storage.k8s.io/fstype":
			o.fstype = value
		case "o":
			o.mountFlags = strings.Split(value, ",")
		case "mode":
			if _, ok := modes[value]; !ok {
				err = fault.New(fault.Invalid, "mode=%s: it is one of %s", value, strings.Join(slices.Sorted(maps.Keys(modes)), ", "))
			}
			o.mode, o.readOnly = value, strings.HasSuffix(value, "reader-only")
		case "volumehandle":
			o.handle = value
		case "secrets":
			if !filepath.IsAbs(value) {
				err = fault.New(fault.Invalid, "secrets=%s: it is the absolute path of a JSON file", value)
			}
			o.secrets = value
		case "topology":
			o.topology, err = segments(value)
		default:
			if k, ok := strings.CutPrefix(key, "context."); ok {
				o.context[k] = value
			} else {
				o.parameters[key] = value
			}
		}
		if err != nil {
			return nil, err
		}
	}
	if o.limit > 0 && o.limit < o.size {
		return nil, fault.New(fault.Invalid, "limit=%d is less than size=%d", o.limit, o.size)
	}
	if o.block && (o.fstype != "" || o.mountFlags != nil) {
		return nil, fault.New(fault.Invalid, "access=block takes neither fstype nor o: a device has no file system")
	}
	if len(o.context) > 0 && o.handle == "" {
		return nil, fault.New(fault.Invalid, "context.… describes an existing volume: it needs volumehandle")
	}
	return o, nil
}

func bytes(key, value string) (int64, error) {
	n, err := units.RAMInBytes(value)
	if err != nil || n < 0 {
		return 0, fault.New(fault.Invalid, "invalid %s: '%s'", key, value)
	}
	return n, nil
}

// socketOf gives the path of a unix socket that a CSI endpoint names: unix:///path, unix:path or a path.
func socketOf(endpoint string) (string, error) {
	path := strings.TrimPrefix(strings.TrimPrefix(endpoint, "unix:"), "//")
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return "", fault.New(fault.Invalid, "endpoint %q: CSI drivers listen on unix sockets, unix:///path", endpoint)
	}
	return filepath.Clean(path), nil
}

func segments(value string) ([]map[string]string, error) {
	var list []map[string]string
	for place := range strings.SplitSeq(value, "|") {
		one := map[string]string{}
		for pair := range strings.SplitSeq(place, ";") {
			k, v, ok := strings.Cut(pair, "=")
			if !ok || k == "" {
				return nil, fault.New(fault.Invalid, "topology=%s: it is key=value;key=value", value)
			}
			one[k] = v
		}
		list = append(list, one)
	}
	return list, nil
}

// capability tells how the volume is going to be used.
func (o *options) capability(manyWriters bool) *csi.VolumeCapability {
	c := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{}}
	switch {
	case o.mode != "":
		c.AccessMode.Mode = modes[o.mode]
	case manyWriters:
		c.AccessMode.Mode = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	default:
		c.AccessMode.Mode = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	}
	if o.block {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	} else {
		c.AccessType = &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: o.fstype, MountFlags: o.mountFlags}}
	}
	return c
}

func (o *options) capacity() *csi.CapacityRange {
	if o.size == 0 && o.limit == 0 {
		return nil
	}
	return &csi.CapacityRange{RequiredBytes: o.size, LimitBytes: o.limit}
}
