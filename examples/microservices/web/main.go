// Web is the page that people see: the ships of the harbour and what is booked on them. POST /book passes a booking on.
package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"sort"
	"syscall"
	"time"
)

const addr = ":8080"

//go:embed page.html
var files embed.FS

var page = template.Must(template.ParseFS(files, "page.html"))

var client = &http.Client{Timeout: 5 * time.Second}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "-healthy" {
		resp, err := http.Get("http://127.0.0.1" + addr + "/healthy")
		if err != nil || resp.StatusCode != http.StatusOK {
			os.Exit(1)
		}
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthy", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("/", show)
	mux.HandleFunc("/book", book)
	server := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	go func() {
		<-ctx.Done()
		server.Shutdown(context.Background())
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

// Ship is a line of the page.
type Ship struct {
	Name   string
	Built  int `json:"built"`
	Tonnes int `json:"tonnes"`
	Booked int
}

func show(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		http.NotFound(w, r)
		return
	}
	var known map[string]*Ship
	var booked []struct {
		Ship   string `json:"ship"`
		Tonnes int    `json:"tonnes"`
	}
	if err := get(os.Getenv("SHIPS")+"/ships", &known); err != nil {
		trouble(w, err)
		return
	}
	if err := get(os.Getenv("CARGO")+"/cargo", &booked); err != nil {
		trouble(w, err)
		return
	}
	for _, b := range booked {
		if s := known[b.Ship]; s != nil {
			s.Booked += b.Tonnes
		}
	}
	ships := make([]*Ship, 0, len(known))
	for name, s := range known {
		s.Name = name
		ships = append(ships, s)
	}
	sort.Slice(ships, func(i, j int) bool { return ships[i].Name < ships[j].Name })
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := page.Execute(w, ships); err != nil {
		log.Print(err)
	}
}

func book(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.Error(w, "POST a booking", http.StatusMethodNotAllowed)
		return
	}
	resp, err := client.Post(os.Getenv("CARGO")+"/cargo", "application/json", io.LimitReader(r.Body, 1<<16))
	if err != nil {
		trouble(w, err)
		return
	}
	defer resp.Body.Close()
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body)
}

func get(url string, into any) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

func trouble(w http.ResponseWriter, err error) {
	log.Print(err)
	http.Error(w, "fog in the harbour: try again", http.StatusBadGateway)
}
