"""OpenAI's HTTP dialect over a recurrent network: its tokens are characters."""
