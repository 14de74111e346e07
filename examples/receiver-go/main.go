// Receiver receives callbacks: it verifies each one, handles it once, and does not let an older one overwrite a newer one.
package main

import (
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const maxBody = 12 << 20

var (
	secretForm    = regexp.MustCompile(`^whsec_([A-Za-z0-9+/]{4}){8,21}([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$`)
	authKeyForm   = regexp.MustCompile(`^(live|test)_auth_[0-9a-f]{32}$`)
	idForm        = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	timedIDForm   = regexp.MustCompile(`^cb_[0-9a-hjkmnp-tv-z]{26}$`)
	timestampForm = regexp.MustCompile(`^[1-9][0-9]{0,11}$`)
)

type receiver struct {
	webhooks []*standardwebhooks.Webhook
	authKeys []string

	// The callbacks that were handled. In production, keep them in tables of your database: claim webhook-id under a
	// unique key, do the work and commit, all in one transaction. Here the mutex takes the place of that transaction.
	mu      sync.Mutex
	handled map[string]bool   // webhook-id
	newest  map[string]string // task_id -> time of its newest event
}

type callback struct {
	TaskID *string `json:"task_id"`
	Task   *struct {
		Status any `json:"status"`
	} `json:"task"`
}

func (rc *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(rc.receive(w, r))
}

// receive returns the status to answer with.
func (rc *receiver) receive(w http.ResponseWriter, r *http.Request) int {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLong := new(http.MaxBytesError); errors.As(err, &tooLong) {
		return http.StatusRequestEntityTooLarge
	}
	if err != nil {
		return http.StatusBadRequest
	}
	if err := rc.verify(r.Header, body); err != nil {
		log.Printf("refused: %v", err) // the sender is told nothing
		return http.StatusUnauthorized
	}
	var cb callback
	if !utf8.Valid(body) || json.Unmarshal(body, &cb) != nil || cb.TaskID == nil || cb.Task == nil {
		return http.StatusBadRequest
	}
	if err := rc.once(r.Header.Get("webhook-id"), cb); err != nil {
		log.Printf("not handled: %v", err)
		return http.StatusInternalServerError
	}
	return http.StatusNoContent
}

// verify returns why a request is refused, or nil if the platform signed it.
func (rc *receiver) verify(header http.Header, body []byte) error {
	for _, name := range []string{"webhook-id", "webhook-timestamp", "scale-callback-auth"} {
		if len(header.Values(name)) > 1 {
			return fmt.Errorf("%s is repeated", name)
		}
	}
	if !idForm.MatchString(header.Get("webhook-id")) {
		return errors.New("webhook-id is missing or malformed")
	}
	if !timestampForm.MatchString(header.Get("webhook-timestamp")) {
		return errors.New("webhook-timestamp is missing or malformed")
	}
	isKey := func(key string) bool {
		return subtle.ConstantTimeCompare([]byte(key), []byte(header.Get("scale-callback-auth"))) == 1
	}
	if rc.authKeys != nil && !slices.ContainsFunc(rc.authKeys, isKey) {
		return errors.New("scale-callback-auth is not the key")
	}
	// There may be several signature headers, but the library reads only the first one.
	signed := header.Clone()
	signed.Set("webhook-signature", strings.Join(header.Values("webhook-signature"), " "))
	var err error
	for _, webhook := range rc.webhooks {
		if err = webhook.Verify(body, signed); err == nil {
			return nil
		}
	}
	return err
}

// once handles a callback, unless it or a newer one of the same task was handled before.
func (rc *receiver) once(id string, cb callback) error {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	if rc.handled[id] {
		say("repeat", id)
		return nil
	}
	var eventTime string // ten characters that sort as text; an id of another form has none
	if timedIDForm.MatchString(id) {
		eventTime = id[3:13]
	}
	if eventTime != "" && eventTime < rc.newest[*cb.TaskID] {
		say("older", id, *cb.TaskID)
	} else if err := handle(id, cb); err != nil {
		return err
	} else if eventTime != "" {
		rc.newest[*cb.TaskID] = eventTime
	}
	rc.handled[id] = true
	return nil
}

// handle is the place for your work. If it fails, the answer is 500, and the platform tries again.
func handle(id string, cb callback) error {
	status, isText := cb.Task.Status.(string)
	if !isText {
		status = "-"
	}
	say("handled", id, *cb.TaskID, status)
	return nil
}

// say prints a line without control characters, because text from the body must not be able to forge lines of the log.
func say(words ...string) {
	fmt.Println(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.Join(words, " ")))
}

// keysFrom returns the keys that a variable holds: the one in use, and those of a rotation. It checks their form, because
// the library accepts even an empty secret.
func keysFrom(name string, form *regexp.Regexp) []string {
	keys := strings.Fields(os.Getenv(name))
	isMalformed := func(key string) bool { return !form.MatchString(key) }
	if len(keys) < 1 || len(keys) > 4 || slices.ContainsFunc(keys, isMalformed) {
		fmt.Fprintln(os.Stderr, name+" must hold one to four keys as the platform shows them, with white space between them.")
		os.Exit(2)
	}
	return keys
}

func main() {
	rc := &receiver{handled: map[string]bool{}, newest: map[string]string{}}
	for _, secret := range keysFrom("SCALE_CALLBACK_SIGNING_SECRET", secretForm) {
		webhook, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			log.Fatal(err)
		}
		rc.webhooks = append(rc.webhooks, webhook)
	}
	if _, isSet := os.LookupEnv("SCALE_CALLBACK_AUTH_KEY"); isSet {
		rc.authKeys = keysFrom("SCALE_CALLBACK_AUTH_KEY", authKeyForm)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "8080"))
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	mux := http.NewServeMux()
	mux.Handle("POST /callbacks", rc) // another method: 405
	server := &http.Server{Handler: mux, ReadTimeout: time.Minute}
	go server.Serve(listener)
	fmt.Printf("listening on http://%s/callbacks\n", listener.Addr())

	<-ctx.Done()
	deadline, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	server.Shutdown(deadline)
}
