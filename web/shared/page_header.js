// What only a script of this page can send: the server's page_requests.py says why.

/** To be sent with every request that changes something. */
export const PAGE_HEADER = { "X-QSched-Page": "1" };
