package driver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// Fetched is the answer to `fetch`.
type Fetched struct {
	Status   int    `json:"status"`
	Size     int64  `json:"size"`
	SHA256   string `json:"sha256"`
	Protocol string `json:"protocol"`
}

// Fetch gets a page with a transport that goes through a tunnel.
func Fetch(ctx context.Context, transport http.RoundTripper, page string) (any, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return nil, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, fetchError(ctx, err)
	}
	defer response.Body.Close()
	digest := sha256.New()
	size, err := io.Copy(digest, response.Body)
	if err != nil {
		return nil, fetchError(ctx, err)
	}
	return Fetched{response.StatusCode, size, hex.EncodeToString(digest.Sum(nil)), protocol(response)}, nil
}

// PageAddress gives the host and port that a page's URL leads to.
func PageAddress(page string) (host, port string, err error) {
	address, err := url.Parse(page)
	if err != nil {
		return "", "", err
	}
	if port = address.Port(); port == "" {
		port = "443"
	}
	return address.Hostname(), port, nil
}

func fetchError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return Timeout("no page: " + err.Error())
	}
	return err
}

// protocol names a version as ALPN does (RFC 7301).
func protocol(response *http.Response) string {
	if response.ProtoMajor == 1 {
		return fmt.Sprintf("http/%d.%d", response.ProtoMajor, response.ProtoMinor)
	}
	return fmt.Sprintf("h%d", response.ProtoMajor)
}
