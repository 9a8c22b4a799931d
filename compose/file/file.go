package file

// A File is a compose file, under the name by which errors and relative paths know it.
type File struct {
	Name string
	Text []byte
}

// A Question asks what files say together: one may change what another says, extend its services and include more files.
type Question struct {
	Files       []File
	Environment map[string]string
	// Guess asks only whether the one file is a compose file at all: its name does not tell.
	Guess bool
}

// An Answer is a question's. Wrong is what is wrong with the files, in words; a file that was only guessed at has no Builds.
type Answer struct {
	Builds *Builds `json:",omitempty"`
	Wrong  string  `json:",omitempty"`
}

// Builds is what there is to build.
type Builds struct {
	Services []Build  // by name
	Read     []string // files that those named have led to
}

// A Build is the build section of a service, and what else of the service belongs to it. Fields have the meaning of the Compose specification's
// build section where nothing else is said. https://github.com/compose-spec/compose-spec/blob/main/build.md
type Build struct {
	Service          string // its name
	Image            string // what the result is called if there are no tags
	Context          string
	Dockerfile       string
	DockerfileInline string
	Target           string
	Network          string
	Tags             []string
	Platforms        []string
	Entitlements     []string
	Args             map[string]string // those that have a value, also from the service's environment
	Labels           map[string]string
	ExtraHosts       map[string][]string
	Contexts         map[string]string
	SSH              []SSH
	Secrets          []Secret
	ShmSize          int64 // bytes
	NoCache          bool
	Pull             bool
	Privileged       bool
	Ulimits          map[string]Ulimit
	CacheFrom        []string
	CacheTo          []string
	Provenance       string
	SBOM             string
	Bake             any // x-bake, as decoded
}

// SSH is an agent, or keys, that steps may use.
type SSH struct {
	ID, Path string
}

// Secret is one that steps may read. Missing: the files say nothing of the Source.
type Secret struct {
	Source, Target    string
	File, Environment string
	External, Missing bool
}

// Ulimit bounds what a process of a step may use.
type Ulimit struct {
	Soft, Hard int
}
