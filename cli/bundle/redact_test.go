package bundle

import (
	"encoding/json"
	"strings"
	"testing"
)

// hidden is in every secret below.
const hidden = "hunter2"

func TestNoSecretIsLeft(t *testing.T) {
	for _, text := range []string{
		`{"Config": {"Env": ["DB_PASSWORD=hunter2", "PLAIN=hunter2"]}}`,
		`{"Args": ["--password", "hunter2"]}`,
		`{"Args": ["--db-password=hunter2"]}`,
		`{"Cmd": ["sh", "-c", "mysql --password=hunter2 db"]}`,
		`{"Cmd": ["sh", "-c", "curl -H 'Authorization: Bearer hunter2hunter2' http://x"]}`,
		`{"HttpProxy": "http://me:hunter2@proxy:3128/"}`,
		`{"LogConfig": {"Config": {"splunk-token": "hunter2"}}}`,
		`{"Labels": {"com.example.api_key": "hunter2"}}`,
		`{"a": [{"b": {"SecretValue": "hunter2"}}]}`,
		`{"k": "-----BEGIN EC PRIVATE KEY-----\nhunter2\n-----END EC PRIVATE KEY-----\n"}`,
		`{"k": "-----BEGIN PRIVATE KEY-----\nhunter2"}`,
		`level=info msg="login" password=hunter2 user=me`,
		`{"level":"info","token":"hunter2"`,
		`GET https://u:hunter2@registry/v2/`,
		`"passphrase": 'hunter2'`,
		`{"HttpProxy": "http://me:p@ss@hunter2@proxy:3128/"}`,
		`{"Cmd": ["sh", "-c", "mysql --password hunter2 db"]}`,
		`{"Cmd": ["sh", "-c", "MYSQL_PWD=hunter2 mysql"]}`,
		`{"Labels": {"traefik.http.middlewares.a.basicauth.users": "me:hunter2"}}`,
	} {
		if got := string(Redact([]byte(text))); strings.Contains(got, hidden) {
			t.Errorf("%s\nbecame %s", text, got)
		}
	}
}

func TestTheRestStays(t *testing.T) {
	got := Redact([]byte(`{"Id": "abc", "Memory": 9007199254740993, "Env": ["EMPTY=", "BARE", "PATH=/bin"], "Args": ["--port", "80"], "Mounts": [{"Source": "/srv"}]}`))
	var v struct {
		ID     string `json:"Id"`
		Memory json.Number
		Env    []string
		Args   []string
		Mounts []struct{ Source string }
	}
	if err := json.Unmarshal(got, &v); err != nil {
		t.Fatal(err)
	}
	if v.ID != "abc" || v.Memory != "9007199254740993" || strings.Join(v.Env, "|") != "EMPTY=|BARE|PATH=[redacted] 4 bytes" || strings.Join(v.Args, " ") != "--port 80" || v.Mounts[0].Source != "/srv" {
		t.Errorf("%s", got)
	}
}

func FuzzRedact(f *testing.F) {
	f.Add(`{"Env":["A=b"]}`)
	f.Add("password: x")
	f.Fuzz(func(t *testing.T, text string) {
		once := Redact([]byte(text))
		if json.Valid([]byte(text)) && !json.Valid(once) {
			t.Errorf("%q is no JSON any more: %q", text, once)
		}
	})
}
