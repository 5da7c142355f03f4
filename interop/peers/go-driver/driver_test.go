package driver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPattern(t *testing.T) {
	data, err := io.ReadAll(Pattern(1<<17 + 3))
	if err != nil || len(data) != 1<<17+3 {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	for _, i := range []int{0, 1, 255, 256, 65535, 65536, 1<<17 + 2} {
		if want := byte(i ^ i>>8 ^ i>>16); data[i] != want {
			t.Errorf("byte %d is %d, expected %d", i, data[i], want)
		}
	}
}

func TestInboxGivesBackWhatATimeoutLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader, writer := io.Pipe()
		inbox := NewInbox(reader)
		fmt.Fprint(writer, "abc")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := inbox.Take(ctx, 5); err == nil || !strings.HasPrefix(err.Error(), "timeout") {
			t.Fatalf("%v is no timeout", err)
		}
		fmt.Fprint(writer, "def")
		data, ended, err := inbox.Take(t.Context(), 4)
		if string(data) != "abcd" || ended || err != nil {
			t.Fatalf("%q, %v, %v", data, ended, err)
		}
		writer.Close()
		data, ended, err = inbox.Take(t.Context(), 9)
		if string(data) != "ef" || !ended || err != nil {
			t.Fatalf("%q, %v, %v", data, ended, err)
		}
	})
}

func TestInboxCarriesMoreThanItHolds(t *testing.T) {
	size := int64(3*inboxLimit + 1)
	inbox := NewInbox(Pattern(size))
	first, _, err := inbox.Take(t.Context(), 2*inboxLimit)
	if err != nil || len(first) != 2*inboxLimit {
		t.Fatalf("%d bytes, %v", len(first), err)
	}
	rest := bytes.NewBuffer(first)
	n, end, err := inbox.Drain(t.Context(), rest)
	want, _ := io.ReadAll(Pattern(size))
	if n != inboxLimit+1 || end != io.EOF || err != nil || !bytes.Equal(rest.Bytes(), want) {
		t.Fatalf("%d bytes, end %v, %v", n, end, err)
	}
}

func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		queue := NewQueue()
		for _, payload := range []string{"a", "b", "c"} {
			queue.Put([]byte(payload))
		}
		if taken := queue.Take(t.Context(), 2); string(bytes.Join(taken, nil)) != "ab" {
			t.Fatalf("%q", taken)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if taken := queue.Take(ctx, 2); string(bytes.Join(taken, nil)) != "c" {
			t.Fatalf("%q", taken)
		}
		gone := errors.New("gone")
		queue.End(gone)
		queue.End(io.EOF)
		if end, err := queue.Wait(t.Context()); end != gone || err != nil {
			t.Fatalf("%v, %v", end, err)
		}
		if taken := queue.Take(t.Context(), 2); taken == nil || len(taken) != 0 {
			t.Fatalf("%q", taken)
		}
	})
}

func TestServeAnswersWhileAVerbWaits(t *testing.T) {
	goOn, quick := make(chan struct{}), make(chan struct{})
	verbs := map[string]Verb{
		"slow": func(*Request) (any, error) { <-goOn; return map[string]int{"n": 1}, nil },
		"quick": func(r *Request) (any, error) {
			defer close(quick)
			return nil, fmt.Errorf("%s %d", r.Data, *r.Pattern)
		},
	}
	in, requests := io.Pipe()
	answers, out := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- Serve(in, out, "us", []string{"tcp"}, verbs) }()
	decoder := json.NewDecoder(answers)
	next := func() string {
		var line json.RawMessage
		if err := decoder.Decode(&line); err != nil {
			t.Fatal(err)
		}
		return string(line)
	}
	if hello := next(); !strings.Contains(hello, `"features":["tcp"]`) {
		t.Fatal(hello)
	}
	go fmt.Fprint(requests, `{"id":7,"verb":"slow"}`+"\n"+`{"id":8,"verb":"quick","data":"aGk=","pattern":0}`+"\n")
	got := []string{next()}
	<-quick
	close(goOn)
	got = append(got, next())
	if want := []string{`{"id":8,"error":"hi 0"}`, `{"id":7,"ok":{"n":1}}`}; !slices.Equal(got, want) {
		t.Fatalf("%q", got)
	}
	requests.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
