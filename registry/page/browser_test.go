package page

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/websocket"
)

var shots = flag.String("shots", "", "directory to leave pictures of the pages in")

// chromium is a headless browser, spoken to by the DevTools protocol.
type chromium struct {
	t       *testing.T
	ws      *websocket.Conn
	session string
	next    int
	events  []message
}

type message struct {
	ID     int             `json:"id,omitempty"`
	Method string          `json:"method,omitempty"`
	Params json.RawMessage `json:"params,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
	Session string `json:"sessionId,omitempty"`
}

// browse starts the browser with one empty page.
func browse(t *testing.T) *chromium {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("needs chromium: pages are looked at in a browser")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	home, err := os.MkdirTemp("", "berth-test-chromium-")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0", "--remote-allow-origins=http://localhost", "--hide-scrollbars", "--user-data-dir="+home, "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its many processes end together
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("needs chromium: %v", err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cancel()
		cmd.Wait()
		for range 50 { // some of them take a moment, and write until then
			if os.RemoveAll(home) == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Log("left behind:", home)
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, to, ok := strings.Cut(lines.Text(), "DevTools listening on "); ok {
			ws, err := websocket.Dial(to, "", "http://localhost")
			if err != nil {
				t.Fatal(err)
			}
			go func() { // ends when the browser does, which Cleanup waits for
				for lines.Scan() {
				}
			}()
			t.Cleanup(func() { ws.Close() })
			c := &chromium{t: t, ws: ws}
			var target struct{ TargetID string }
			c.do("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
			var session struct{ SessionID string }
			c.do("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
			c.session = session.SessionID
			for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
				c.do(domain+".enable", nil, nil)
			}
			return c
		}
	}
	t.Skip("needs chromium: it says no DevTools address")
	return nil
}

// do sends one command and waits for its answer; events that come meanwhile are kept.
func (c *chromium) do(method string, params any, result any) {
	c.t.Helper()
	c.next++
	data, _ := json.Marshal(params)
	if params == nil {
		data = []byte("{}")
	}
	if err := websocket.JSON.Send(c.ws, message{ID: c.next, Method: method, Params: data, Session: c.session}); err != nil {
		c.t.Fatal(err)
	}
	for {
		m := c.read()
		if m.ID != c.next {
			c.events = append(c.events, m)
			continue
		}
		if m.Error != nil {
			c.t.Fatalf("%s: %s", method, m.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(m.Result, result); err != nil {
				c.t.Fatal(err)
			}
		}
		return
	}
}

func (c *chromium) read() message {
	c.t.Helper()
	c.ws.SetReadDeadline(time.Now().Add(time.Minute))
	var m message
	if err := websocket.JSON.Receive(c.ws, &m); err != nil {
		c.t.Fatal(err)
	}
	return m
}

// wait waits for an event that has not been waited for.
func (c *chromium) wait(method string) {
	c.t.Helper()
	for i, e := range c.events {
		if e.Method == method {
			c.events = append(c.events[:i], c.events[i+1:]...)
			return
		}
	}
	for {
		m := c.read()
		if m.Method == method {
			return
		}
		c.events = append(c.events, m)
	}
}

// open goes to an address and waits until it is shown.
func (c *chromium) open(to string) {
	c.t.Helper()
	c.do("Page.navigate", map[string]any{"url": to}, nil)
	c.wait("Page.loadEventFired")
}

// ask evaluates an expression in the page.
func (c *chromium) ask(expression string) any {
	c.t.Helper()
	var r struct {
		Result           struct{ Value any }
		ExceptionDetails json.RawMessage
	}
	c.do("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &r)
	if r.ExceptionDetails != nil {
		c.t.Fatalf("%s: %s", expression, r.ExceptionDetails)
	}
	return r.Result.Value
}

// click presses something and waits for the page that comes of it.
func (c *chromium) click(selector string) {
	c.t.Helper()
	c.ask(fmt.Sprintf("document.querySelector(%q).click()", selector))
	c.wait("Page.loadEventFired")
}

// look sets size and colours, and takes a picture when it is asked for.
func (c *chromium) look(name string, width, height int, scheme string) {
	c.t.Helper()
	c.do("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	c.do("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	if wide := c.ask("document.documentElement.scrollWidth").(float64); int(wide) > width {
		c.t.Errorf("%s is %v wide on a screen of %d", name, wide, width)
	}
	if *shots == "" {
		return
	}
	var shot struct{ Data string }
	c.do("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &shot)
	data, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		err = os.WriteFile(filepath.Join(*shots, name+".png"), data, 0o644)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// complaints gives what the browser has to say: policy violations, errors, and requests to other hosts.
func (c *chromium) complaints(host string) []string {
	var out []string
	for _, e := range c.events {
		switch e.Method {
		case "Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled":
			if !strings.Contains(string(e.Params), "404 (Not Found)") {
				out = append(out, string(e.Params))
			}
		case "Network.requestWillBeSent":
			var p struct{ Request struct{ URL string } }
			json.Unmarshal(e.Params, &p)
			if !strings.HasPrefix(p.Request.URL, "http://"+host+"/") && p.Request.URL != "about:blank" {
				out = append(out, "a request to "+p.Request.URL)
			}
		}
	}
	return out
}

// TestInABrowser walks through the pages as a person does, with scripts forbidden.
func TestInABrowser(t *testing.T) {
	c := browse(t)
	s := start(t, nil)
	s.fill(t)
	c.do("Emulation.setScriptExecutionDisabled", map[string]any{"value": true}, nil)

	c.open(s.URL + "/")
	c.look("home", 1280, 900, "light")
	c.look("home-dark", 1280, 900, "dark")
	c.look("home-phone", 390, 844, "light")
	if n := c.ask("document.querySelectorAll('.card').length").(float64); n != 7 {
		t.Errorf("%v cards", n)
	}
	if font := c.ask("getComputedStyle(document.querySelector('.tile')).borderRadius").(string); font == "0px" {
		t.Error("the style sheet is not used")
	}
	c.ask("document.querySelector('#q').value = 'tomcat'")
	c.click(".search button")
	c.look("search", 1280, 900, "light")
	c.click(".card h2 a")
	if title := c.ask("document.title").(string); title != "tomcat · Harbour Registry" {
		t.Errorf("title %q", title)
	}
	c.look("repository", 1280, 1400, "light")
	c.look("repository-dark", 1280, 1400, "dark")
	c.look("repository-phone", 390, 1600, "dark")
	c.click("tbody a.tag")
	c.look("image", 1280, 1600, "light")
	c.look("image-dark", 1280, 1600, "dark")
	c.look("image-phone", 390, 1800, "light")
	c.click(".platforms a:not(.on)")
	if on := c.ask("document.querySelector('.platforms .on').textContent").(string); !strings.Contains(on, "linux/arm64") {
		t.Errorf("platform %q", on)
	}

	c.click(".who a")
	c.look("signin", 1280, 800, "light")
	c.ask("document.querySelector('#name').value = 'alice'; document.querySelector('#password').value = 'wrong'")
	c.click(".sheet button")
	if text := c.ask("document.querySelector('.problem').textContent").(string); !strings.Contains(text, "wrong") {
		t.Errorf("%q", text)
	}
	c.ask("document.querySelector('#password').value = 'right'")
	c.click(".sheet button")
	if at := c.ask("location.pathname").(string); at != "/r/library/tomcat:10" {
		t.Errorf("after signing in at %s", at)
	}
	c.click(".crumbs a:last-of-type")
	c.click(".acts button")
	if text := c.ask("document.querySelector('.acts button').textContent").(string); !strings.Contains(text, "Starred") {
		t.Errorf("%q", text)
	}
	c.look("signed-in", 1280, 900, "light")
	c.click(".acts a.button")
	c.look("edit", 1280, 900, "dark")
	c.ask("document.querySelector('#short').value = 'Said in a browser'")
	c.click(".sheet button")
	if text := c.ask("document.querySelector('.repo .short').textContent").(string); text != "Said in a browser" {
		t.Errorf("%q", text)
	}
	c.click(".who button")
	if c.ask("document.querySelector('.user')") != nil {
		t.Error("still signed in")
	}
	c.open(s.URL + "/r/no/such")
	c.look("error", 1280, 700, "light")
	for _, complaint := range c.complaints(s.host) {
		if !strings.Contains(complaint, "403 (Forbidden)") { // the wrong password
			t.Error(complaint)
		}
	}
}
