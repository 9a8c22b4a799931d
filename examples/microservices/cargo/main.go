// Cargo takes bookings: POST /cargo with a ship and tonnes, GET /cargo for all of them. It asks tariff for the price, keeps what was
// booked in a file of its volume, and signs each receipt with the harbour's seal.
package main

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	addr = ":8080"
	book = "/data/bookings.jsonl"
	seal = "/run/secrets/seal"
)

// Booking is a line of the book.
type Booking struct {
	Number  int    `json:"number"`
	Ship    string `json:"ship"`
	Tonnes  int    `json:"tonnes"`
	Cents   int    `json:"cents"`
	Receipt string `json:"receipt"`
}

type ledger struct {
	mu   sync.Mutex
	list []Booking
	file *os.File
	seal []byte
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "-healthy" {
		resp, err := http.Get("http://127.0.0.1" + addr + "/healthy")
		if err != nil || resp.StatusCode != http.StatusOK {
			os.Exit(1)
		}
		return
	}
	l, err := open()
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthy", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("/cargo", l.serve)
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
	l.mu.Lock() // what is being booked is written
	l.file.Close()
}

func open() (*ledger, error) {
	key, err := os.ReadFile(seal)
	if err != nil {
		return nil, fmt.Errorf("the harbour's seal: %w", err)
	}
	f, err := os.OpenFile(book, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	l := &ledger{file: f, seal: key}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var b Booking
		if err := json.Unmarshal(lines.Bytes(), &b); err != nil {
			return nil, fmt.Errorf("line %d of the book: %w", len(l.list)+1, err)
		}
		l.list = append(l.list, b)
	}
	return l, nil
}

func (l *ledger) serve(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
		l.mu.Lock()
		defer l.mu.Unlock()
		answer(w, http.StatusOK, append([]Booking{}, l.list...))
	case http.MethodPost:
		var b Booking
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&b); err != nil {
			refuse(w, http.StatusBadRequest, "a booking is JSON with a ship and tonnes")
			return
		}
		cents, code, why := price(r.Context(), b.Ship, b.Tonnes)
		if code != http.StatusOK {
			refuse(w, code, why)
			return
		}
		b.Cents = cents
		if err := l.add(&b); err != nil {
			log.Print(err)
			refuse(w, http.StatusInternalServerError, "the book cannot be written")
			return
		}
		answer(w, http.StatusCreated, b)
	default:
		refuse(w, http.StatusMethodNotAllowed, "GET or POST")
	}
}

// add numbers, signs and keeps a booking.
func (l *ledger) add(b *Booking) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b.Number = len(l.list) + 1
	mac := hmac.New(sha256.New, l.seal)
	fmt.Fprintf(mac, "%d %s %d %d", b.Number, b.Ship, b.Tonnes, b.Cents)
	b.Receipt = hex.EncodeToString(mac.Sum(nil)[:8])
	line, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		return err
	}
	if err := l.file.Sync(); err != nil {
		return err
	}
	l.list = append(l.list, *b)
	return nil
}

// price asks the tariff service. A refusal of its is passed on.
func price(ctx context.Context, ship string, tonnes int) (cents, code int, why string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	q := url.Values{"ship": {ship}, "tonnes": {strconv.Itoa(tonnes)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, os.Getenv("TARIFF")+"/price?"+q.Encode(), nil)
	if err != nil {
		return 0, http.StatusInternalServerError, err.Error()
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		log.Print(err)
		return 0, http.StatusBadGateway, "nobody knows the price"
	}
	defer resp.Body.Close()
	var said struct {
		Cents int    `json:"cents"`
		Error string `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&said); err != nil {
		return 0, http.StatusBadGateway, "nobody knows the price"
	}
	return said.Cents, resp.StatusCode, said.Error
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, code int, why string) {
	answer(w, code, map[string]string{"error": why})
}
