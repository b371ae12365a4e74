"""An HTTP server with OpenAI's interface; needs the extra ``serve``."""
