package catalog

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"berth/registry/access"
	"berth/registry/notice"
)

// TestChild is no test: it is the process that TestKilled kills. It gives stars and descriptions and says what was answered.
func TestChild(t *testing.T) {
	root := os.Getenv("CATALOG_TEST_ROOT")
	if root == "" {
		t.Skip("it is run by TestKilled")
	}
	src := &shelf{repos: map[string]Derived{"team/web": image("1", "")}}
	c, err := Open(Config{Root: root, Source: src, Access: private{}, Log: quiet()})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	c.Notice(notice.Event{Action: notice.Push, Repository: "team/web", MediaType: "m"})
	if err := c.Settle(context.Background()); err != nil {
		os.Exit(1)
	}
	for i := 0; ; i++ {
		user := fmt.Sprintf("u%s-%d", os.Getenv("CATALOG_TEST_ROUND"), i)
		if err := c.Star(context.Background(), user, "team/web", true); err == nil {
			fmt.Println("star", user)
		}
		if err := c.Describe(context.Background(), access.Subject{Name: user}, "team/web", Description{Short: user}); err == nil {
			fmt.Println("described", user)
		}
		c.Notice(notice.Event{Action: notice.Push, Repository: "team/web", MediaType: "m"})
	}
}

// TestKilled kills a process in the middle of changes, again and again: what was answered is there afterwards.
func TestKilled(t *testing.T) {
	root := t.TempDir()
	stars, described := map[string]bool{}, ""
	for round := range 12 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestChild$")
		cmd.Env = append(os.Environ(), "CATALOG_TEST_ROOT="+root, fmt.Sprint("CATALOG_TEST_ROUND=", round))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Duration(60+17*round)*time.Millisecond, func() { cmd.Process.Kill() })
		for lines := bufio.NewScanner(out); lines.Scan(); {
			switch what, user, _ := strings.Cut(lines.Text(), " "); what {
			case "star":
				stars[user] = true
			case "described":
				described = user
			case "error":
				t.Error(lines.Text())
			}
		}
		cmd.Wait()
		kill.Stop()

		c, err := Open(Config{Root: root, Source: &shelf{repos: map[string]Derived{"team/web": image("1", "")}}, Access: private{}, Log: quiet()})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		c.Refresh("team/web")
		settle(t, c)
		e, err := c.Entry("team/web")
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for user := range stars {
			if !c.Starred(user, "team/web") {
				t.Fatalf("round %d: the star of %s is lost", round, user)
			}
		}
		// What was on its way when the process died may have been written, but nothing older may be back.
		if e.Stars > len(stars)+round+1 || described != "" && !strings.HasPrefix(e.Short, strings.Split(described, "-")[0]+"-") {
			t.Fatalf("round %d: %d stars, %d answered; described by %s, answered %s", round, e.Stars, len(stars), e.Short, described)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(stars) < 10 {
		t.Errorf("only %d stars were given: the test proves little", len(stars))
	}
}
