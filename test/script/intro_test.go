package script

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"berth/test/live"

	"github.com/rogpeppe/go-internal/testscript"
)

type introImage struct {
	name     string
	packages []string
	changes  []string
}

// importInto makes the image under a name.
func (i introImage) importInto(docker string, e *live.Engine, name string) error {
	tar, err := live.DebianTar(i.packages...)
	if err != nil {
		return err
	}
	args := []string{"-H", e.Host, "import"}
	for _, c := range i.changes {
		args = append(args, "--change", c)
	}
	if out, err := exec.Command(docker, append(args, tar, name)...).CombinedOutput(); err != nil {
		return fmt.Errorf("import %s: %v\n%s", i.name, err, out)
	}
	return nil
}

// The images of introductions, from Debian's packages.
var introImages = []introImage{
	{"nginx", []string{"nginx-light"}, []string{"EXPOSE 80", `CMD ["nginx", "-g", "daemon off;"]`, "STOPSIGNAL SIGQUIT"}},
	{"tomcat", []string{"tomcat10", "default-jre-headless"}, []string{
		"EXPOSE 8080", "ENV JAVA_HOME=/usr/lib/jvm/default-java CATALINA_HOME=/usr/share/tomcat10 CATALINA_BASE=/var/lib/tomcat10", `CMD ["/usr/share/tomcat10/bin/catalina.sh", "run"]`,
	}},
	{"debian", nil, []string{`CMD ["bash"]`}},
	{"redis", []string{"redis-server"}, []string{"EXPOSE 6379", "VOLUME /data", `CMD ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data", "--appendonly", "yes"]`}},
	{"postgres", []string{"postgresql"}, []string{"EXPOSE 5432", `CMD ["sh", "-c", "` + runPostgres + `"]`}},
}

// runPostgres starts the cluster that Debian's package made, open to everybody.
const runPostgres = `install -d -o postgres /run/postgresql; echo host all all all trust >>$(echo /etc/postgresql/*/main/pg_hba.conf); cd /usr/lib/postgresql/*/; exec su postgres -c 'exec bin/postgres -c config_file=$(echo /etc/postgresql/*/main/postgresql.conf) -c listen_addresses=*'`

// TestIntroductions types what introductions to Docker print, with the stock command line.
func TestIntroductions(t *testing.T) {
	if *against != "" {
		t.Skip("needs an engine of ours: the scripts look at it from its host's network")
	}
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("needs the stock docker command line on PATH")
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("needs curl: install the package of that name")
	}
	e := start(t)
	for _, i := range introImages {
		if err := i.importInto(docker, e, i.name); err != nil {
			t.Skip(err)
		}
	}
	scripts, err := filepath.Glob("testdata/intro/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	testscript.Run(t, testscript.Params{
		Files:         scripts,
		UpdateScripts: *update,
		Condition:     conditions("docker"),
		Cmds:          places(e.World),
		Setup: func(env *testscript.Env) error {
			prepare(env, "docker", docker, e.Host)
			env.Setenv("BERTH", filepath.Join(e.Bin, "berth"))
			return nil
		},
	})
}
